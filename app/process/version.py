"""The version of this code, shown in `/openapi.json`, the User-Agent and `detections_build_info`."""

VERSION = "0.1.0"
USER_AGENT = f"detections/{VERSION}"
