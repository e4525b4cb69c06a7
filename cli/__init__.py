"""The command line. The only place that prints, exits or knows flags."""
