"""Bugs of the compiled kernels, for `tests.native_mutations`: each is an edit of one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """An edit of a source, in which `old` stands exactly once."""

    name: str
    file: str
    old: str
    new: str


BUGS = (
    Bug(
        "leaves: the last lanes of a leaf are not read",
        "leaves.hpp",
        "if (i < width) store",
        "if (i + 1 < width) store",
    ),
    Bug(
        "leaves: strides of entries are ignored",
        "leaves.hpp",
        "from + i * stride, storage",
        "from + i * std::int64_t(sizeof(T)), storage",
    ),
    Bug(
        "leaves: halves are read as bfloat16",
        "leaves.hpp",
        "if (storage == FLOAT16) return",
        "if (storage == BFLOAT16) return",
    ),
    Bug("leaves: uint8 is read as int8", "leaves.hpp", "integer_at<std::uint8_t>", "integer_at<std::int8_t>"),
    Bug(
        "leaves: an index at the bound is good",
        "leaves.hpp",
        "std::uint64_t(id) < std::uint64_t(lookup.bound);\n        if (!good) id = 0;",
        "std::uint64_t(id) <= std::uint64_t(lookup.bound);\n        if (!good) id = 0;",
    ),
    Bug(
        "leaves: a negative index is good",
        "leaves.hpp",
        "std::uint64_t(position) >=",
        "std::int64_t(position) >= 0 && std::uint64_t(position) >=",
    ),
    Bug(
        "leaves: a digit is taken of the wrong mode",
        "leaves.hpp",
        "lookup.tables[mode].length, id, choice",
        "lookup.tables[from].length, id, choice",
    ),
    Bug(
        "leaves: all terms take the index of the first",
        "leaves.hpp",
        "if (term && lookup.kind == TERMS) good &=",
        "if (false) good &=",
    ),
    Bug(
        "leaves: bfloat16 is cut and not rounded",
        "leaves.hpp",
        "(bits + 0x7fff + (bits >> 16 & 1)) >> 16",
        "bits >> 16",
    ),
    Bug(
        "tree: widths of products are off by one",
        "tree.hpp",
        "store(to + i * width, first[i] * right)",
        "store(to + i * (width + 1), first[i] * right)",
    ),
    Bug(
        "tree: the variance of a leaf is that of a sample",
        "tree.hpp",
        "squares / double(width)",
        "squares / double(width > 1 ? width - 1 : 1)",
    ),
    Bug("tree: eps is left out", "tree.hpp", "std::sqrt(variance + eps)", "std::sqrt(variance)"),
    Bug(
        "tree: the moments of a node are those of what it normalises",
        "tree.hpp",
        "{0, variance * scale * scale}",
        "{0, variance}",
    ),
    Bug(
        "halves: the bias of the root is left out",
        "halves.hpp",
        "found.bias -= root.mean * scale",
        "found.bias -= 0 * scale",
    ),
    Bug(
        "halves: the right half is taken by the left digits",
        "halves.hpp",
        "direct(split, choice.position[split])",
        "direct(split, choice.position[0])",
    ),
    Bug(
        "halves: a half that ends within a vector is read where it lies",
        "halves.hpp",
        "if (vectors && table.width % LANES<T>) return false;",
        "",
    ),
    Bug(
        "halves: records of a table begin one number late",
        "halves.hpp",
        "position * lookup.rank * stride, stride};",
        "position * lookup.rank * stride + (position > 2), stride};",
    ),
    Bug(
        "halves: half tables of leaves of opposite scales",
        "halves.hpp",
        "lookup.layernorm || !lookup.level || lookup.purpose",
        "lookup.layernorm || lookup.purpose",
    ),
    Bug(
        "scale: what is small is not looked at",
        "scale.hpp",
        "high <= HIGH<T> && low >= LOW<T>",
        "high <= HIGH<T>",
    ),
    Bug("scale: a row has that of others", "halves.hpp", "= is_level(row, row + 1);", "= false;"),
    Bug("scale: shifts do not add up to zero", "scale.hpp", ": -moved;", ": 1 - moved;"),
    Bug(
        "expand: a term is left out",
        "expand.hpp",
        "for (std::int64_t k = 0; k < rank; k++) {\n        Vector<T> own",
        "for (std::int64_t k = 0; k < rank - (rank == 5); k++) {\n        Vector<T> own",
    ),
    Bug(
        "expand: the last row of a tile stores whole vectors",
        "expand.hpp",
        "Tail{lanes, spills && count > SIZE, spills}",
        "Tail{lanes, spills, spills}",
    ),
    Bug("expand: narrow rows store whole vectors", "expand.hpp", "only && width >= LANES<T>;", "only;"),
    Bug(
        "expand: the crop of the last row is ignored",
        "expand.hpp",
        "last, halves.right, 1, rest,",
        "last, halves.right, 1, width,",
    ),
    Bug("expand: first terms are left out", "expand.hpp", "out[i] += piece[i];", "out[i] = piece[i];"),
    Bug("expand: a bad row is not NaN", "expand.hpp", "if (!halves.good) {", "if (false) {"),
    Bug(
        "array: the last axis has the stride of the first",
        "array.hpp",
        "given->strides[axis]",
        "given->strides[axis == 2 ? 0 : axis]",
    ),
    Bug(
        "lookup: the entry of the left half that the crop cuts is not kept",
        "lookup.hpp",
        "found.whole + (found.rest > 0)",
        "found.whole",
    ),
    Bug(
        "vector: the tail of a product of vectors is left out",
        "vector.hpp",
        "return load_first(first + i, lanes) * load_first(second + i, lanes);",
        "return Vector<T>{};",
    ),
    Bug(
        "vector: the last numbers of an array are not added to",
        "vector.hpp",
        "to[i] += from[i];\n}",
        "to[i] = from[i];\n}",
    ),
    Bug(
        "contract: every second row is left out",
        "contract.hpp",
        "columns[v] += even + odd",
        "columns[v] += even",
    ),
    Bug(
        "contract: the last of many terms is left out",
        "contract.hpp",
        "for (; rank; move(1))",
        "for (; rank > 1; move(1))",
    ),
    Bug(
        "contract: the crop is ignored",
        "contract.hpp",
        "std::min(width, lookup_.columns - (a + i) * whole - j)",
        "width",
    ),
    Bug(
        "contract: a block keeps what the one before it had behind its rows",
        "contract.hpp",
        "for (std::int64_t rest = padded<T>(there); rest < step; rest++) copy[rest] = 0;",
        "",
    ),
    Bug(
        "transpose: rows of the result have the step of the source",
        "transpose.hpp",
        "(j + k) * to_step + i",
        "(j + k) * step + i",
    ),
    Bug(
        "transpose: half of the lanes are not summed",
        "transpose.hpp",
        "rows[i] += rows[i + SIDE]",
        "rows[i] += SIDE > 1 ? rows[i + SIDE] : Vector<T>{}",
    ),
    Bug(
        "cotangents: the mean of a node is left out of its slope",
        "cotangents.hpp",
        "left_width) - node.mean * whole) / width",
        "left_width)) / width",
    ),
    Bug(
        "cotangents: the mean of the other child is left out",
        "cotangents.hpp",
        "slope * (other.variance + other.mean * other.mean)",
        "slope * other.variance",
    ),
    Bug("cotangents: shifts are not applied", "cotangents.hpp", "if (!space_.shifted) return;", "return;"),
    Bug(
        "cotangents: the last lane of a wide right child is left out",
        "cotangents.hpp",
        "left[i] * load_first(cotangent + j, right_width - j)",
        "left[i] * load_first(cotangent + j, right_width - j - 1)",
    ),
    Bug(
        "cotangents: a narrow right child is contracted with one entry",
        "cotangents.hpp",
        "columns[j] += left[i] * cotangent[j]",
        "columns[j] += left[0] * cotangent[j]",
    ),
    Bug("sums: the counter forgets what was moved", "sums.hpp", "hits = MOVED;", "hits = 0;"),
    Bug(
        "sums: what was moved before is lost",
        "sums.hpp",
        "to[i] += double(from[i])",
        "to[i] = double(from[i])",
    ),
    Bug("sums: nothing is ever moved", "sums.hpp", "if ((hits & ~MOVED) == short_)", "if (false)"),
    Bug(
        "pull: a bad row has a gradient by half tables",
        "pull.hpp",
        "if (!pick_records(lookup, b, high, low)) return;",
        "pick_records(lookup, b, high, low);",
    ),
    Bug(
        "pull: a bad row has a gradient by tables",
        "pull.hpp",
        "if (!good) return;\n        if (lookup.kind == TERMS)",
        "if (lookup.kind == TERMS)",
    ),
    Bug(
        "pull: a bad row has the record of the one before it",
        "pull.hpp",
        "if (good)\n                    copy_first",
        "if (true)\n                    copy_first",
    ),
    Bug(
        "pull: all parts but the first are left out",
        "pull.hpp",
        "for (const auto& part : parts) found += part[position]",
        "found += parts[0][position]",
    ),
    Bug(
        "pull: a part leaves out its last row",
        "pull.hpp",
        "stop = lookup.batch * (part + 1) / lookup.parts;",
        "stop = lookup.batch * (part + 1) / lookup.parts - (part > 0);",
    ),
    Bug(
        "pull: rows of one record take the place of each other",
        "pull.hpp",
        "order[std::size_t(places[std::size_t(by_left ? high : low)]++)]",
        "order[std::size_t(places[std::size_t(by_left ? high : low)])]",
    ),
    Bug(
        "pull: sums that were moved are not put back",
        "pull.hpp",
        "if (lookup.parts == 1)\n            finish(first, to);",
        "if (lookup.parts == 1)\n            continue;",
    ),
    Bug(
        "pull: the crop of a half table is ignored",
        "pull.hpp",
        "position ? width : std::min(width, lookup.kept)",
        "width",
    ),
    Bug(
        "index sums: the order of the digit before is lost",
        "index_sums.hpp",
        "row = order[std::size_t(i)]",
        "row = i",
    ),
    Bug(
        "sum by index: a piece begins the sum of the one before it again",
        "sum_by_index.hpp",
        "while (place > 0 && place < stop",
        "while (false && place < stop",
    ),
    Bug(
        "sum by index: what was moved before is lost",
        "sum_by_index.hpp",
        "(moved ? whole[i] : 0) + double(own[i])",
        "double(own[i])",
    ),
    Bug(
        "product: terms are added up before the last step",
        "product.hpp",
        "found.steps > 1 ? found.rank : 1",
        "1",
    ),
    Bug(
        "product: rows and columns of a factor are mixed up",
        "product.hpp",
        "given.strides[1], given.strides[2]}",
        "given.strides[2], given.strides[1]}",
    ),
    Bug(
        "blocks: nothing is added to what is there", "blocks.hpp", "if (add) found +=", "if (false) found +="
    ),
    Bug(
        "blocks: the last lane is not written",
        "blocks.hpp",
        "store_first(to, found, of.lanes)",
        "store_first(to, found, of.lanes - 1)",
    ),
    Bug(
        "blocks: the last row stores whole vectors",
        "blocks.hpp",
        "(!add && to + LANES<T> <= of.end)",
        "!add",
    ),
    Bug(
        "blocks: a vector is left out",
        "blocks.hpp",
        "if (left & 1) found",
        "if (left & 1 && whole > 1) found",
    ),
    Bug(
        "step: the transpose is the matrix itself",
        "step.hpp",
        "{weight.plain, 1, step.width}",
        "{weight.plain, step.width, 1}",
    ),
    Bug(
        "step: rows that lie far apart are copied by the wrong stride",
        "step.hpp",
        "x + k * inner + i - back, std::size_t",
        "x + k * most + i - back, std::size_t",
    ),
    Bug(
        "step: weight gradients leave out the last numbers of inner",
        "step.hpp",
        "if (whole < width) add(",
        "if (whole + 1 < width) add(",
    ),
    Bug(
        "step: weight gradients of the blocks before are lost",
        "step.hpp",
        "found[i * q + j] += double(spare",
        "found[i * q + j] = double(spare",
    ),
    Bug(
        "chain: there are no zeros behind a cropped row",
        "chain.hpp",
        "std::memset(room + i * size + width, 0, std::size_t(size - width) * sizeof(T));",
        "",
    ),
    Bug(
        "chain: each term takes the place of the one before",
        "chain.hpp",
        "onward(0, term, z, count, to, term > 0)",
        "onward(0, term, z, count, to, false)",
    ),
    Bug(
        "chain: all terms have the weight gradient of the first",
        "chain.hpp",
        "to, term > 0, to_weights + term * product.gradient_size",
        "to, term > 0, to_weights",
    ),
    Bug(
        "chain: what the crop cuts is of the last term alone",
        "chain.hpp",
        "z + whole * step.p * step.inner, out_, add)",
        "z + whole * step.p * step.inner, out_, false)",
    ),
    Bug(
        "chain: factors are merged by the wrong stride",
        "chain.hpp",
        "right[i * factor.columns + j]",
        "right[i * factor.rows + j]",
    ),
    Bug(
        "groups: a sum is that of the last rows of an id alone",
        "groups.hpp",
        "const bool fresh = hits == 0 ||",
        "const bool fresh = hits != 1 ||",
    ),
    Bug(
        "groups: sums that grew long are lost",
        "groups.hpp",
        "to[i] = T(whole[i] + double(to[i]));",
        "to[i] = T(double(to[i]));",
    ),
    Bug(
        "chain: the last chunk goes beyond the batch",
        "chain.hpp",
        "std::min(start + size, product.batch)",
        "start + size",
    ),
)
