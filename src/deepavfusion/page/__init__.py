"""A page in the browser for trained models: `deepavfusion serve`.

    serve_config   settings
    serve          the command: models and examples made ready, the server from its start to its clean end
    app            the page itself: what is on it, and what its buttons do
    local_files    inputs that take uploads and nothing else
    front          what stands on the page before anything is found, as HTML
    guard          what the server lets in, and the headers of what it sends
    visits         who is there, and the files that are theirs until they go
    intake         what is taken of a visitor's files, and what is said of one that is not
    offers         the tasks that a model can do, and why not the others
    analysis       what a request does: task after task, with progress, to a folder and a zip
    cards, charts  results as HTML
    examples       clips of the embedded world, ready to click

Only `serve`, `app` and `local_files` import gradio, when the command runs.
"""
