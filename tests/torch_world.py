"""What processes of torch.distributed must agree on, for tests/test_torch_distributed.py.

    python -m tests.torch_world FOLDER      writes what failed, by name of check, in FOLDER/WORLD-PROCESS.json

PyTorch is imported once; the processes are forked from the one that did.  All compare with one process, which
each of them also is.
"""

import json
import os
import re
import sys
import traceback
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import ketcore.torch as kt
from tests.page_code import defined

WORDS, COLUMNS = 23, 12
# Sums of few numbers in float64, in another order.
close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


class Model(nn.Module):
    """Every kind of embedding, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.xs = kt.EmbeddingKetXS(WORDS, COLUMNS, rank=3, row_scale=True)
        self.ket = kt.EmbeddingKet(WORDS, COLUMNS, order=2, layernorm=True)
        self.bag = kt.EmbeddingBagKetXS(WORDS, COLUMNS, rank=2)
        self.linear = kt.KroneckerLinear(COLUMNS, 6, rank=2)

    def forward(self, ids):
        return self.linear(self.xs(ids).sum(1) + self.ket(ids).sum(1) + self.bag(ids))


def seeded(make, seed=0):
    """What is made, with the same numbers in every process."""
    torch.manual_seed(seed)
    return make()


def batch():
    """Ids of a batch of six, and what they are to be."""
    torch.manual_seed(1)
    return torch.randint(WORDS, (6, 4)), torch.randn(6, 6)


def part(tensor):
    """The rows of this process."""
    return tensor.chunk(dist.get_world_size())[dist.get_rank()]


def trained(model, ids, goal, groups=None):
    """A model after three steps, and the losses."""
    optimizer = torch.optim.SGD(groups or model.parameters(), lr=0.05, momentum=0.9, foreach=True)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = ((model(ids) - goal) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, torch.stack(losses)


def full(tensor):
    """All of a parameter, wherever its parts are."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def check_ddp_equals_one_process():
    ids, goal = batch()
    one, losses = trained(seeded(Model), ids, goal)
    many, own = trained(DistributedDataParallel(seeded(Model)), part(ids), part(goal))
    for name, value in one.state_dict().items():
        close(many.module.state_dict()[name], value)
    dist.all_reduce(own)
    close(own / dist.get_world_size(), losses)


def counted(layer):
    """Bytes of gradients that DDP reduces in a step."""
    found = []

    def hook(state, bucket):
        found.append(bucket.buffer().nbytes)
        return allreduce_hook(None, bucket)

    model = DistributedDataParallel(layer)
    model.register_comm_hook(None, hook)
    model(torch.arange(5)).sum().backward()
    return sum(found)


def check_only_gradients_of_factors_travel():
    words, columns = 3000, 64
    assert counted(nn.Embedding(words, columns, dtype=torch.float32)) == 4 * words * columns == 768_000
    xs = kt.EmbeddingKetXS(words, columns, order=2, rank=10, dtype=torch.float32)
    assert (xs.row_dims, xs.col_dims) == ((50, 60), (8, 8))
    assert counted(xs) == 4 * 10 * (50 * 8 + 60 * 8) == 35_200
    ket = kt.EmbeddingKet(words, columns, order=3, rank=1, dtype=torch.float32)
    assert ket.dims == (4, 4, 4)
    assert counted(ket) == 4 * words * (4 + 4 + 4) == 144_000


def check_fully_shard_equals_one_process():
    ids, goal = batch()
    one, _ = trained(seeded(Model), ids, goal)
    many = seeded(Model)
    for layer in (*many.children(), many):
        fully_shard(layer)
    many, _ = trained(many, part(ids), part(goal))
    for name, value in one.named_parameters():
        found = many.get_parameter(name)
        assert isinstance(found, DTensor)
        assert len(found.to_local()) == len(part(value))
        close(full(found), value.detach())


def check_recipe_of_dtensors():
    """Factors on every process, ids divided: what the page has."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    ids, goal = batch()
    one, many = seeded(Model), seeded(Model)
    loss = ((one(ids) - goal) ** 2).sum()
    loss.backward()
    distribute_module(many, mesh)
    found = defined("how-to/many_machines.md")["over_mesh"](many, distribute_tensor(ids, mesh, [Shard(0)]))
    assert found.placements == (Shard(0),)
    close(full(found), one(ids).detach())
    ((found - distribute_tensor(goal, mesh, [Shard(0)])) ** 2).sum().backward()
    for name, value in one.named_parameters():
        parameter = many.get_parameter(name)
        assert parameter.placements == (Replicate(),)
        close(full(parameter.grad), value.grad)


def sharded(whole):
    """A layer divided between processes, with the records of `whole`."""
    names = ("order", "rank", "dims", "layernorm", "padding_idx")
    known = {name: getattr(whole, name) for name in names} | {"dtype": whole.leaves.dtype}
    layer = kt.ShardedEmbeddingKet(whole.num_embeddings, whole.embedding_dim, **known)
    layer.load_state_dict(whole.state_dict())
    return layer


def agree(whole, ids):
    """Rows and gradients of a divided table are those of the whole one; ids are a tensor for each process."""
    layer, own = sharded(whole), ids[dist.get_rank()]
    tolerance = {torch.bfloat16: 0.02, torch.complex64: 1e-5}.get(whole.leaves.dtype, 1e-12)
    same = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    found, weights = layer(own), [torch.randn(*each.shape, whole.embedding_dim) for each in ids]
    same(found, whole(own))
    weights = [weight.to(found.dtype) for weight in weights]
    (found * weights[dist.get_rank()]).sum().abs().backward()
    losses = [(whole(each) * weight).sum().abs() for each, weight in zip(ids, weights, strict=True)]
    (sum(losses) / len(losses)).backward()
    same(full(layer.leaves.grad), whole.leaves.grad)
    # The gradient is where the records are, and nowhere else.
    assert layer.leaves.grad.to_local().shape == layer.leaves.to_local().shape


def drawn_ids(words, *shapes):
    """Ids for each process, of the shapes in turn."""
    processes = range(dist.get_world_size())
    return [torch.randint(words, shapes[process % len(shapes)]) for process in processes]


def check_sharded_equals_whole():
    make = partial(kt.EmbeddingKet, order=2, rank=2)
    for words in (2 * dist.get_world_size(), 7, 1):
        agree(seeded(lambda words=words: make(words, 11)), drawn_ids(words, (3, 2), (5,)))
    whole = seeded(lambda: make(7, 16, padding_idx=-3, layernorm=True))
    # The gradient of a record of zeros would be zero anyway.
    nn.init.normal_(whole.leaves)
    ids = drawn_ids(7, (40,))
    agree(whole, [ids[0].int(), *ids[1:]])
    assert not whole.leaves.grad[4].any()
    for dtype in (torch.bfloat16, torch.complex64):
        agree(seeded(lambda dtype=dtype: make(7, 16, dtype=dtype)), drawn_ids(7, (4,)))


def check_a_process_may_have_no_ids():
    whole = seeded(lambda: kt.EmbeddingKet(7, 16))
    agree(whole, drawn_ids(7, (0,), (5,)))
    whole.zero_grad()
    agree(whole, drawn_ids(7, (0, 3)))


def check_records_that_are_assigned_are_divided():
    whole, ids = seeded(lambda: kt.EmbeddingKet(7, 16)), torch.arange(7)
    replicated = distribute_tensor(whole.leaves.detach(), kt.ShardedEmbeddingKet(7, 16).mesh, [Replicate()])
    for given in (whole.leaves.detach(), replicated):
        layer = kt.ShardedEmbeddingKet(7, 16, dtype=torch.float32)
        layer.load_state_dict({"leaves": given}, assign=True)
        close(layer(ids), whole(ids))
        own = layer.leaves.to_local()
        assert layer.leaves.placements == (Shard(0),)
        assert own.untyped_storage().data_ptr() != whole.leaves.untyped_storage().data_ptr()
        assert len(own) == len(part(ids))


def check_sharded_trains_beside_ddp():
    ids, goal = batch()
    whole = seeded(lambda: kt.EmbeddingKet(WORDS, COLUMNS, order=2))
    linear = seeded(lambda: kt.KroneckerLinear(COLUMNS, 6))
    layer, body = sharded(whole), DistributedDataParallel(seeded(lambda: kt.KroneckerLinear(COLUMNS, 6)))
    trained(nn.Sequential(whole, nn.Flatten(1), nn.Unflatten(1, (4, -1)), linear), ids, goal[:, None])
    groups = [{"params": list(layer.parameters())}, {"params": list(body.parameters())}]
    model = nn.Sequential(layer, nn.Flatten(1), nn.Unflatten(1, (4, -1)), body)
    trained(model, part(ids), part(goal)[:, None], groups)
    close(full(layer.leaves), whole.leaves.detach())
    close(body.module.factors[0], linear.factors[0])


def check_sharded_refuses():
    layer, first = kt.ShardedEmbeddingKet(7, 16), dist.get_rank() == 0
    for bad in (7, -1):
        own = r"input must lie in \[0, 7\), got " + str(bad)
        others = r"input must lie in \[0, 7\), got an id out of range on process 0"
        refuses(IndexError, own if first else others, layer, torch.tensor([3, bad if first else 2]))
    # None of them waits for another.
    assert layer(torch.tensor([3])).shape == (1, 16)
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1))
    refuses(ValueError, "mesh must have one dimension, got 2", kt.ShardedEmbeddingKet, 7, 16, mesh=mesh)
    refuses(TypeError, "mesh must be a DeviceMesh, got int", kt.ShardedEmbeddingKet, 7, 16, mesh=2)
    alone = DeviceMesh("cpu", [0])
    if first:
        assert kt.ShardedEmbeddingKet(7, 16, mesh=alone).leaves.to_local().shape == (7, 1, 8)
    else:
        text = rf"mesh must have this process, got process {dist.get_rank()} and those of \[0\]"
        refuses(ValueError, text, kt.ShardedEmbeddingKet, 7, 16, mesh=alone)
    distributed = distribute_tensor(torch.arange(4), layer.mesh, [Shard(0)])
    refuses(TypeError, "input must be the ids of this process, got a DTensor", layer, distributed)
    refuses(TypeError, "input must have an integer dtype", layer, torch.ones(2))
    smaller = {"leaves": torch.zeros(6, 1, 8)}
    refuses(RuntimeError, "size mismatch for leaves", layer.load_state_dict, smaller)


def refuses(kind, text, function, *args, **options):
    """The call raises an error of this kind and text."""
    raised = None
    try:
        function(*args, **options)
    except kind as error:
        raised = error
    assert re.search(text, str(raised)), raised


def check_bytes_of_sharded_rows():
    """The arithmetic of its docstring: ids there, records back, gradients of records there."""
    layer, found = kt.ShardedEmbeddingKet(1000, 64, order=3, dtype=torch.float32), []
    exchange = dist.all_to_all_single

    def counting(output, input, *args, **options):
        found.append((input.nbytes, output.nbytes))
        return exchange(output, input, *args, **options)

    dist.all_to_all_single = counting
    try:
        # 50 ids a process, 25 of them different.
        layer(torch.arange(0, 1000, 40).repeat(2)).sum().backward()
    finally:
        dist.all_to_all_single = exchange
    counts, ids, records, gradients = found
    assert counts == (8 * dist.get_world_size(),) * 2
    assert ids[0] == 25 * 8
    assert records[1] == gradients[0] == 25 * 4 * (4 + 4 + 4)


def check_processes_draw_other_records():
    layer = seeded(lambda: kt.ShardedEmbeddingKet(1000, 16, padding_idx=1, std=0.5))
    records = full(layer.leaves)
    assert not records[1].any()
    assert len(records[:, 0, 0].unique()) == 1000
    rows = full(layer(torch.arange(1000)))
    assert 0.4 < rows.std() < 0.6


def check_checkpoints_between_worlds(folder):
    """The world of two saves, that of three loads: records and what the optimizer keeps of them."""
    path, expected = str(folder / "checkpoint"), folder / "expected.pt"
    layer = seeded(lambda: kt.ShardedEmbeddingKet(7, 16), seed=dist.get_world_size())
    optimizer = torch.optim.Adam(layer.parameters())
    (layer(torch.arange(7)) ** 2).sum().backward()
    optimizer.step()
    state = {"model": layer.state_dict(), "moments": optimizer.state[layer.leaves]}
    if dist.get_world_size() == 2:
        checkpoint.save(state, checkpoint_id=path)
        torch.save(state["model"], folder / f"{dist.get_rank()}.pt")
    else:
        part_of_two = torch.load(folder / f"{min(dist.get_rank(), 1)}.pt")
        text = "leaves must be divided between 3 processes, got 2"
        refuses(RuntimeError, text, layer.load_state_dict, part_of_two)
        checkpoint.load(state, checkpoint_id=path)
        layer.load_state_dict(state["model"])
    found = [full(layer.leaves), full(optimizer.state[layer.leaves]["exp_avg"])]
    if dist.get_world_size() == 3:
        close(found, torch.load(expected))
    elif dist.get_rank() == 0:
        torch.save(found, expected)


CHECKS = {name.removeprefix("check_"): each for name, each in globals().items() if name.startswith("check_")}
# What three processes do as well: it takes time.
OF_THREE = (
    "sharded_equals_whole",
    "a_process_may_have_no_ids",
    "sharded_refuses",
    "checkpoints_between_worlds",
)


def run(process, world, folder):
    """All checks, in a process of a world of several."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    store = dist.FileStore(str(folder / f"store-{world}"), world)
    # Where one process fails others wait for it, and a check takes less than a second.
    dist.init_process_group(
        "gloo", store=store, timeout=timedelta(seconds=60), rank=process, world_size=world
    )
    failed = {}
    for name in CHECKS if world == 2 else OF_THREE:
        try:
            CHECKS[name](folder) if name == "checkpoints_between_worlds" else CHECKS[name]()
            failed[name] = ""
        except Exception:
            failed[name] = traceback.format_exc()
    (folder / f"{world}-{process}.json").write_text(json.dumps(failed), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    # Names of hosts may lead nowhere.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    for size in (2, 3):
        arguments = size, Path(sys.argv[1])
        torch.multiprocessing.start_processes(run, arguments, nprocs=size, start_method="fork")
