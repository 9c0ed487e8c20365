"""The section `content`: what content of other images costs a start."""

import shutil

from turns import fim, fim_environment, image, quick, run, spawn, table, turns, work

COUNTS = (1, 10, 100)


def producer(number):
    """An image of one small file, whose directory it shares."""
    file, tree = work / f"producer-{number}.flatimage", work / f"producer-{number}"
    if not file.exists():
        (tree / "shared").mkdir(parents=True)
        (tree / "shared" / str(number)).write_text(f"{number}\n")
        run([fim, "build", str(tree), "-o", str(file), "--boot", "none", "--quiet"])
        run([str(file), "fim-content", "slot", "shared", "--read", "$FIM_ROOT_DIR/shared"])
    return str(file)


def content():
    def first(image, environment):
        return lambda: spawn([image, "fim-exec", "/measure", "nothing"], environment)

    rows = [("**first start, static program, no plug**", first(image, fim_environment()))]
    consumer = str(work / "content.flatimage")
    shutil.copy(image, consumer)
    run([consumer, "fim-content", "plug", "shared", "--target", "$FIM_ROOT_DIR/shared"])
    for count in COUNTS:
        environment = fim_environment()
        for number in range(count):
            run([consumer, "fim-content", "connect", "shared", producer(number)], env=environment)
        rows.append((f"the same with {count} producers", first(consumer, environment)))
    table("Start to exit with content of other images", turns(rows, 7 if quick else 31, 2), "ms", "less", 2)
