"""linear_operator: rows of a batch of KroneckerProductLinearOperator, in the faster of the two ways it has.

`operator[:, ids, :]` multiplies the whole operator by an interpolation matrix, at a cost that hardly depends
on the batch; element indices cost a gather per element and mode, and win up to 1024 ids.
"""

from bench.peers import torch_contestant

ELEMENTWISE = 1024


def build(case):
    workload = case.workload
    if workload.kind != "rows":
        return None
    import torch
    from linear_operator.operators import KroneckerProductLinearOperator

    factors = [torch.tensor(table, requires_grad=True) for table in case.tables]
    ids, columns = torch.from_numpy(case.ids), torch.arange(workload.dim)
    terms = torch.arange(workload.rank)[:, None, None]

    def forward():
        operator = KroneckerProductLinearOperator(*factors)
        if case.batch <= ELEMENTWISE:
            return operator[terms, ids[:, None], columns].sum(0)
        return operator[:, ids, :].to_dense().sum(0)[:, : workload.dim]

    return torch_contestant("linear_operator", "package", case, forward, factors, list)
