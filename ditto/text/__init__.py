"""From a prompt and images to text: processors, generation defaults, the incremental detokenizer, the pipeline."""
