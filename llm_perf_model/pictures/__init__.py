"""Pictures from numbers and words alone: no specs, no physics. Importing them needs Matplotlib."""

from ..errors import RequestError

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError:
    raise RequestError("a picture needs the package matplotlib: pip install 'llm-perf-model[plot]'") from None
