"""A TensorRT that fails at its n-th call: returns None, False or -1 where the real one would on failure."""

from types import SimpleNamespace

__version__ = "0.0"


class Fake:
    """Counts calls; call number ``fail_at`` fails. Every object it hands out counts with it."""

    def __init__(self, fail_at=0):
        self.fail_at, self.calls = fail_at, 0
        self.__version__ = __version__
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace()
        self.ProfilingVerbosity = SimpleNamespace(DETAILED=2)
        self.ComputeCapability = SimpleNamespace(SM80=80, SM86=86, SM89=89, SM120=120, SM121=121)
        self.ILogger = self.IProgressMonitor = object

    def answer(self, good, bad=None):
        self.calls += 1
        return bad if self.calls == self.fail_at else good

    def Builder(self, logger):
        return self.answer(
            SimpleNamespace(
                create_network=lambda flags: self.answer(network()),
                create_builder_config=lambda: self.answer(self.config()),
                create_optimization_profile=lambda: self.answer(profile()),
                build_serialized_network=lambda net, config: self.answer(b"plan"),
            )
        )

    def OnnxParser(self, net, logger):
        parser = SimpleNamespace(
            parse=lambda data: self.answer(True, False), num_errors=1, get_error=lambda index: "no"
        )
        return self.answer(parser)

    def config(self):
        return SimpleNamespace(
            set_compute_capability=lambda value, index: self.answer(True, False),
            add_optimization_profile=lambda entry: self.answer(0, -1),
        )


def profile():
    return SimpleNamespace(set_shape=lambda *arguments: None)


def network():
    half = SimpleNamespace(dtype=SimpleNamespace(name="HALF"), name="features", shape=(-1, 4))
    layer = SimpleNamespace(
        metadata="", name="conv1", type=SimpleNamespace(name="CONVOLUTION"), get_output=lambda index: half
    )
    return SimpleNamespace(
        num_layers=1,
        num_inputs=1,
        num_outputs=1,
        get_layer=lambda index: layer,
        get_input=lambda index: half,
        get_output=lambda index: half,
    )
