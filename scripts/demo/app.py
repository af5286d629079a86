import fast_litellm  # noqa: D100, F401, I001
from litellm.proxy.proxy_server import app  # noqa: F401
