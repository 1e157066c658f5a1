"""Server with OpenAI's HTTP interface."""
