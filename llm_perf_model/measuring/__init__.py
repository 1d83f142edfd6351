"""The machine at hand as records: what is built, how it is timed, and what is written down."""
