"""Cards that are made in Python: sorting lists of several lengths."""

from madengine.utils.discover_models import CustomModel

LENGTHS = ("1e5", "1e6")


class Sort(CustomModel):
    def update_model(self) -> None:
        """Called only for a selected model: work that takes long belongs here."""
        numbers = int(float(self.name.removeprefix("sort_")))
        repeats = max(1, 300_000 // numbers)
        self.args = f"--numbers {numbers} --repeats {repeats}"


def list_models() -> list[CustomModel]:
    return [
        Sort(f"sort_{length}", dockerfile="../../docker/python", scripts="run.sh", n_gpus="0", timeout=60, tags=["cpu"])
        for length in LENGTHS
    ]
