"""The release of this code, as `/openapi.json`, the User-Agent of its requests and `detections_build_info` tell it."""

VERSION = "0.1.0"
USER_AGENT = f"detections/{VERSION}"
