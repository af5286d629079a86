"""End-to-end harness: a real LiteLLM proxy, a fake provider behind it and load in front of it.

`fake_openai` is the provider, `proxy` starts the processes, `setups` configures them, `load` sends
requests, `key_limits` and `deployments` measure what the limits let through and what the Router knows,
and `scenarios` lists it all. Nothing here talks to anything but loopback.
"""
