"""Many films from a table: rows, workers, and a ledger beside the films."""
