from tests.runtime.conftest import bundle_of, inverter_of, tiny

__all__ = ["bundle_of", "inverter_of", "tiny"]  # the fixtures that the runtime's tests have
