import fast_litellm
from litellm.proxy.proxy_server import app
