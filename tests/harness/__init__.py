"""End-to-end harness: a real LiteLLM proxy, a fake provider behind it and load in front of it.

`fake_openai` is the provider, `proxy` starts the processes, `load` sends requests and `scenarios`
measures what the limits let through. Nothing here talks to anything but loopback.
"""
