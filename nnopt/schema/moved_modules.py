"""Old names of modules and packages.

``nnopt/__init__.py`` reads ``MOVED_MODULES`` when a module is not found.
"""

MOVED_PACKAGES = {
    "nnopt.cli": "compare completion describe diff gradcheck lr_find resume",
    "nnopt.config": "compose conf_file conf_source grammar hydra_internals point rules set_aside "
    "show validate yaml_file",
    "nnopt.io": "paths",
    "nnopt.recipe": "auto_lr prepare run thread_notes",
    "nnopt.terminal": "console interruption",
}
"""Package -> names of the modules that were moved from ``nnopt`` into the package."""

MOVED_MODULES = {
    **{
        f"nnopt.{name}": f"{new}.{name}"
        for new, names in MOVED_PACKAGES.items()
        for name in names.split()
    },
    "nnopt.arguments": "nnopt.cli.parsers",
    "nnopt.backends.numpy_scratch": "nnopt.backends.numpy",
    "nnopt.backends.pytorch": "nnopt.backends.torch",
    "nnopt.backends.torch.lion": "nnopt.backends.torch.optimizers",
    "nnopt.bars": "nnopt.terminal.live_display",
    "nnopt.composer": "nnopt.config.resolve",
    "nnopt.data.fetch": "nnopt.data.download",
    "nnopt.data.files": "nnopt.data.dataset_files",
    "nnopt.data.generated": "nnopt.data.synthetic",
    "nnopt.data.places": "nnopt.data.locations",
    "nnopt.data.published_files": "nnopt.data.download",
    "nnopt.data.repeats": "nnopt.data.duplicates",
    "nnopt.data.verify": "nnopt.data.download",
    "nnopt.data_command": "nnopt.cli.data",
    "nnopt.differences": "nnopt.training.finite_differences",
    "nnopt.hydra_adapter": "nnopt.config.hydra",
    "nnopt.launch": "nnopt.cli.run",
    "nnopt.live_curves": "nnopt.terminal.live_display",
    "nnopt.plots.confusion": "nnopt.plots.run.confusion",
    "nnopt.plots.curves": "nnopt.plots.run.curves",
    "nnopt.plots.decision_boundary": "nnopt.plots.run.decision_boundary",
    "nnopt.plots.feature_maps": "nnopt.plots.run.feature_maps",
    "nnopt.plots.filters": "nnopt.plots.run.images",
    "nnopt.plots.layer_lines": "nnopt.plots.run.layer_statistics",
    "nnopt.plots.layer_maps": "nnopt.plots.run.layer_statistics",
    "nnopt.plots.layer_statistics": "nnopt.plots.run.layer_statistics",
    "nnopt.plots.lr_find": "nnopt.plots.run.lr_curve",
    "nnopt.plots.run_plots": "nnopt.plots.run.draw",
    "nnopt.plots.samples": "nnopt.plots.run.images",
    "nnopt.plots.schedule": "nnopt.plots.run.curves",
    "nnopt.plots.sweep_colours": "nnopt.plots.sweep.metric",
    "nnopt.plots.sweep_curves": "nnopt.plots.sweep.curves",
    "nnopt.plots.sweep_facets": "nnopt.plots.sweep.heat_map",
    "nnopt.plots.sweep_heat_map": "nnopt.plots.sweep.heat_map",
    "nnopt.plots.sweep.compression": "nnopt.plots.sweep.by_key",
    "nnopt.plots.sweep.learning_rate": "nnopt.plots.sweep.by_key",
    "nnopt.plots.sweep_lr": "nnopt.plots.sweep.by_key",
    "nnopt.plots.sweep_means": "nnopt.plots.sweep.means",
    "nnopt.plots.sweep_parallel": "nnopt.plots.sweep.parallel",
    "nnopt.plots.sweep_plots": "nnopt.plots.sweep.draw",
    "nnopt.plots.sweep_words": "nnopt.plots.sweep.labels",
    "nnopt.plots.sweep.setting_table": "nnopt.plots.sweep.layout",
    "nnopt.plots.weight_difference": "nnopt.plots.run.weights",
    "nnopt.plots.weights": "nnopt.plots.run.weights",
    "nnopt.report.command": "nnopt.cli.report",
    "nnopt.report.pictures": "nnopt.report.plots",
    "nnopt.results.digits": "nnopt.analysis.number_format",
    "nnopt.results.files": "nnopt.io.atomic_files",
    "nnopt.results.history": "nnopt.results.metrics_file",
    "nnopt.results.layers": "nnopt.results.metrics_file",
    "nnopt.results.lock": "nnopt.io.locks",
    "nnopt.results.own_files": "nnopt.io.own_files",
    "nnopt.results.received": "nnopt.io.received_files",
    "nnopt.results.statistics": "nnopt.analysis.statistics",
    "nnopt.stream": "nnopt.terminal.safe_stream",
    "nnopt.sweep": "nnopt.sweeps, nnopt.config or nnopt.analysis",
    "nnopt.sweeps.moved": "nnopt.sweeps.manifest",
    "nnopt.sweeps.provenance": "nnopt.sweeps.resume_checks",
    "nnopt.sweeps.received": "nnopt.sweeps.resume_checks",
    "nnopt.sweeps.search.progress": "nnopt.sweeps.search.display",
    "nnopt.sweeps.search.summary": "nnopt.sweeps.search.display",
    "nnopt.terminal.training_progress": "nnopt.terminal.live_display",
    "nnopt.terminal_curves": "nnopt.terminal.plotext_curves",
    "nnopt.text": "nnopt.io.safe_text",
}
"""Old name -> new name. The modules of a moved package are not listed."""
