"""Judge what was trained and exported: measures, figures, the report. Above every other part of deepsim."""
