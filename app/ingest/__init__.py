"""Ingest: stores an uploaded file and records it with its messages, durably."""

from app.ingest.candidate import Candidate
from app.ingest.duplicates import IngestResult
from app.ingest.group_commit import InTransaction
from app.ingest.ingest import Ingest, OnReceived, Received, Upload

__all__ = ["Candidate", "InTransaction", "Ingest", "IngestResult", "OnReceived", "Received", "Upload"]
