from madengine.utils.discover_models import CustomModel


class Swept(CustomModel):
    def update_model(self):
        with open("updates.txt", "a") as file:
            file.write(f"{self.name}\n")
        self.args = "--updated"


def list_models():
    with open("loads.txt", "a") as file:
        file.write("loaded\n")
    return [
        Swept(name=name, dockerfile="../../docker/dummy", scripts="run.sh", n_gpus="0", tags=["dummies", "dynamic"])
        for name in ("dummy_3", "dummy_4")
    ]
