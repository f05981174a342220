"""Accuracy of tables of equal bytes.

python -m bench.tasks run clinc150 --out FILE
python -m bench.tasks run imdb --data FOLDER --out FILE --ratio 200
python -m bench.tasks table FILE

A run that is stopped goes on from its file.
"""

import argparse
import json
import sys
from pathlib import Path

from bench.tasks.corpora import TASKS
from bench.tasks.runs import Runs, table_lines


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    summary, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        "python -m bench.tasks",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train what the file does not have yet")
    run.add_argument("task", choices=TASKS)
    run.add_argument("--out", required=True, metavar="FILE", help="records in JSON")
    run.add_argument("--data", metavar="FOLDER", help="where the texts lie, of imdb")
    run.add_argument("--ratio", type=float, default=100.0, help="dense bytes / bytes (default: 100)")
    run.add_argument("--seeds", type=int, default=3, help="beside that of the tuning (default: 3)")
    run.add_argument("--only", default="", metavar="REGEX", help="tables whose name matches")
    table = commands.add_parser("table", help="print what a file has, in Markdown")
    table.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.command == "table":
        records = [
            each for name in options.files for each in json.loads(Path(name).read_text(encoding="utf-8"))
        ]
        print(*table_lines(records), sep="\n")
        return
    load, epochs = TASKS[options.task]
    try:
        runs = Runs(options.task, load(options.data), Path(options.out), epochs)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for line in runs.all(options.ratio, options.seeds, options.only):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
