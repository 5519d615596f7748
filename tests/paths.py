"""Where the checkout and its photos lie."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "app" / "demo" / "media"
