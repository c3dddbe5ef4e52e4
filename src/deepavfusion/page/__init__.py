"""The web page of `serve`, on which trained models can be tried.

    serve_config   settings
    serve          the command: prepares models and examples, runs the server from start to end
    app            the page: its inputs, buttons and what they do
    local_files    inputs that accept uploads to this server only
    front          the texts shown before any result, as HTML
    guard          which requests the server answers, and the headers of its answers
    visits         open tabs, and the files that belong to them
    intake         checks of uploaded files, and the message about one that is refused
    offers         the tasks that a model can do, and the reasons why not the others
    moments        the search of an archive: what was found, with excerpts
    analysis       the work of a request: task after task, with progress, into a folder and a zip file
    cards, charts  results as HTML
    examples       clips of Bandstand to choose from

Only `serve`, `app` and `local_files` import gradio, when the command runs.
"""
