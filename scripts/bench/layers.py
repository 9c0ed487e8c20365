"""The section `layers`: what each layer more costs a start."""

from turns import fim_environment, image, quick, run, spawn, table, turns, work

COUNTS = (1, 32, 128)


def small_layers(count):
    """A directory of that many layer files, each with a file of its own and one that all of them have."""
    place = work / f"layers-{count}"
    tree = work / "layer-tree"
    place.mkdir()
    tree.mkdir(exist_ok=True)
    for number in range(count):
        (tree / "own").mkdir(exist_ok=True)
        for name in ("top", f"own/{number}"):
            (tree / name).write_text(f"{number}\n")
        run([image, "fim-layer", "create", str(tree), str(place / f"{number}.layer"), "--level", "0"])
        (tree / "own" / str(number)).unlink()
    return str(place)


def layers():
    def first(environment):
        return lambda: spawn([image, "fim-exec", "/measure", "nothing"], environment)

    rows = [("**first start, static program, the image's own layer**", first(fim_environment()))]
    for count in COUNTS:
        environment = dict(fim_environment(), FIM_LAYERS=small_layers(count))
        rows.append((f"the same and {count} layer files", first(environment)))
    table("Start to exit with layers on top", turns(rows, 7 if quick else 31, 2), "ms", "less", 2)
