"""Read what others wrote, and refuse what can't be right: tables, pictures, JSON, and a report of what was forgiven.

Every reader raises one `DataError` that names the file and the line, column or key, says what was expected and what
is there instead, and what to try. Nothing is skipped unless asked for.
"""

from smellkit.checks.clock import Pace
from smellkit.checks.report import Report, fault, long_text, read_json, read_picture, read_yaml, readable
from smellkit.checks.tables import read_texts

__all__ = ["Pace", "Report", "fault", "long_text", "read_json", "read_picture", "read_texts", "read_yaml",
           "readable"]  # fmt: skip
