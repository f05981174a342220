// All kernels for one instruction set; `api.cpp` includes this once for each, inside a namespace.
// VECTOR_BYTES, REGISTERS and KETCORE_MASKS say what the set has.
#include "vector.hpp"
#include "leaves.hpp"
#include "scale.hpp"
#include "tree.hpp"
#include "halves.hpp"
#include "expand.hpp"
#include "transpose.hpp"
#include "contract.hpp"
#include "cotangents.hpp"
#include "sums.hpp"
#include "pull.hpp"
#include "groups.hpp"
#include "sum_by_index.hpp"
#include "blocks.hpp"
#include "step.hpp"
#include "chain.hpp"

extern const Kernels KERNELS;
const Kernels KERNELS = {
    {prepare<float>, prepare<double>},
    {expand<float>, expand<double>},
    {pull_records<float>, pull_records<double>},
    group_rows,
    {pull_groups<float>, pull_groups<double>},
    {pull_begin<float>, pull_begin<double>},
    {pull_part<float>, pull_part<double>},
    {pull_end<float>, pull_end<double>},
    {sum_by_index<float>, sum_by_index<double>},
    {lay_out<float>, lay_out<double>},
    {multiply<float>, multiply<double>},
    {multiply_back<float>, multiply_back<double>},
    {multiply_first<float>, multiply_first<double>},
    {multiply_behind<float>, multiply_behind<double>},
    {multiply_behind_back<float>, multiply_behind_back<double>},
    {multiply_first_back<float>, multiply_first_back<double>},
};
