"""How the generator was trained: curves, throughput, the last samples; and what so much training can show."""

from __future__ import annotations

from deepsim.runtime.report.charts import Frame, Line, Shade, line_chart
from deepsim.runtime.report.content import Content
from deepsim.runtime.report.layout import code, facts, figure, items, note, paragraph, section, strong
from deepsim.runtime.report.markup import Html, element, join
from deepsim.runtime.report.pictures import picture, thumbnail
from deepsim.runtime.report.run_folder import TrainingRun
from deepsim.runtime.report.wording import count, duration, percent, significant

GRID_WIDTH = 1040  # pixels of the sample grid on the page
FULL_TRAINING = 500_000 * 64  # images seen in the paper's shortest training

# series of the log, title, logarithmic
PANELS = (
    ("image_loss", "Image loss", True),
    ("feature_loss", "Feature loss", True),
    ("adversarial_loss", "Adversarial loss", True),
    ("discriminator_loss", "Discriminator loss", True),
    ("generator_loss", "Generator loss, weighted sum", True),
    ("validation_error", "Normalised image error on validation photographs", False),
    ("images_per_second", "Images per second", False),
)
LAMBDAS = {"image_loss": "lambda_img", "feature_loss": "lambda_feat", "adversarial_loss": "lambda_adv"}


def training(content: Content) -> Html:
    """Show the curves of a run as small multiples, its settings, and its last sample grid."""
    run = content.run
    if run is None:
        body: Html = note("No training run was given: pass its folder with --run for curves, settings and samples.")
    elif not run.lines:
        body = note(f"The log of {run.path.name} is empty: train for a few steps, then write this report again.")
    else:
        panels = [_panel(run, name, title, log) for name, title, log in PANELS if run.series(name)]
        body = join(
            paragraph(_summary(run)),
            facts(_settings(run), "facts columns"),
            element("div", *panels, class_="panels"),
            paragraph(_reading(run), style="small"),
            _samples(run),
        )
    return section("training", "Training", body)


def limits(content: Content) -> Html:
    """Say what this much training, on this layer and with this encoder, can and cannot show."""
    run = content.run
    amount = duration(run.seconds) if run and run.seconds else "so much"
    can = [join(strong(f"{start} "), rest) for start, rest in _can(content)]
    cannot = [join(strong(f"{start} "), rest) for start, rest in _cannot(content)]
    return section(
        "limits",
        f"What {amount} of training can and cannot show",
        element(
            "div",
            element("div", element("h3", "It can show"), items(*can)),
            element("div", element("h3", "It cannot show"), items(*cannot)),
            class_="split even",
        ),
    )


def _panel(run: TrainingRun, name: str, title: str, log: bool) -> Html:
    points = run.series(name)
    scale = 100.0 if name == "validation_error" else 1.0
    shades = [Shade(run.pauses("discriminator"), "paused-d"), Shade(run.pauses("generator"), "paused-g")]
    line = Line([(float(step), value * scale) for step, value in points], "second" if name == "images_per_second" else "first", dots=len(points) < 20)
    (_, first), (_, last) = points[0], points[-1]
    write = percent if scale == 100 else significant
    chart = line_chart(f"{title}: {write(first)} at the start, {write(last)} at the end", [line], shades, Frame(log=log))
    ends = element("span", f"{write(first)} \u2192 {write(last)}", class_="number")
    return figure(chart, join(element("span", title, class_="name"), ends), "panel")


def _summary(run: TrainingRun) -> str:
    seen = f", {run.images_seen:,} crops in all, repeats counted" if run.images_seen else ""
    rates = sorted(value for _, value in run.series("images_per_second"))
    speed = f" at a median of {significant(rates[len(rates) // 2])} images per second" if rates else ""
    return f"{run.steps:,} steps in {duration(run.seconds)}{speed}{seen}."


def _settings(run: TrainingRun) -> list[tuple[str, str]]:
    config = run.config
    names = {
        "batch": "Batch",
        "learning_rate": "Learning rate",
        "schedule": "Schedule",
        "comparator": "Comparator",
        "lambda_img": "\u03bb image",
        "lambda_feat": "\u03bb feature",
        "lambda_adv": "\u03bb adversarial",
        "normalisation": "Loss normalisation",
        "precision": "Precision",
        "seed": "Seed",
    }
    return [(title, _value(config[name])) for name, title in names.items() if config.get(name) not in (None, "")]


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _reading(run: TrainingRun) -> Html:
    """Explain the panels, and the shading where there is any."""
    text = "Steps along the bottom; losses on logarithmic axes. Where points are many, the line is their median and the band their range."
    swatches = []
    for network, style in (("discriminator", "paused-d"), ("generator", "paused-g")):
        stretches = run.pauses(network)
        if stretches:
            steps = sum(last - first for first, last in stretches)
            swatches.append(
                join(" ", element("i", class_=f"swatch {style}"), f" {network} paused, {count(steps, 'step')} in all.")
            )
    unused = [LAMBDAS[name] for name in LAMBDAS if run.config.get(LAMBDAS[name]) == 0]
    off = f" Not used in this run: {', '.join(unused)} is 0." if len(unused) == 1 else ""
    off = f" Not used in this run: {', '.join(unused)} are 0." if len(unused) > 1 else off
    return join(text, *swatches, off)


def _samples(run: TrainingRun) -> Html | None:
    grid = run.last_grid
    if grid is None:
        return None
    step, pixels = grid
    image = picture(thumbnail(pixels, GRID_WIDTH), f"Sample grid at step {step}")
    return figure(image, f"Samples that training wrote at step {step:,}: photographs above, reconstructions below.", "grid")


def _can(content: Content) -> list[tuple[str, str | Html]]:
    margins = [error.margin or 0.0 for error in content.figures.baselines]
    keeps = (
        f"Every guess without features is beaten, the hardest by {percent(min(margins))}: so much of the photographs is "
        f"still in {content.layer} and the generator has learned to read it."
        if min(margins) > 0
        else "Not yet: at least one guess without features is nearer to the photographs than the reconstruction. Train "
        "longer before reading anything into these pictures."
    )
    return [
        ("That the features hold these pictures.", keeps),
        (
            "Layout and colour.",
            "Where things are, how bright and of which colour is learned in the first hundreds of steps, and is what the "
            "error measures most.",
        ),
        (
            "That pixels pass correctly from end to end.",
            "Swapped channels, a forgotten mean or a shifted crop would be plain to see in every pair above.",
        ),
    ]


def _cannot(content: Content) -> list[tuple[str, str | Html]]:
    run, photos = content.run, len(content.figures.photos)
    points: list[tuple[str, str | Html]] = []
    if run and run.images_seen and run.images_seen < FULL_TRAINING / 10:
        share = FULL_TRAINING / run.images_seen
        points.append(
            (
                "Fine texture.",
                f"The generator saw {run.images_seen:,} crops; the paper's saw {FULL_TRAINING:,} or more, "
                f"{significant(share, 2)} times as many. Blur and grain here are those of a young generator, and "
                f"say nothing about what {content.layer} has lost.",
            )
        )
    if run and run.config.get("lambda_adv") == 0:
        points.append(
            (
                "What the adversarial loss adds.",
                "It was off in this run. Without it a generator averages over everything that fits the features, which is "
                "what blur is.",
            )
        )
    if run and run.config.get("encoder_weights") == "":
        seed = run.config.get("seed")
        points.append(
            (
                "Anything about objects.",
                join(
                    f"The encoder's weights are random (seed {seed}). Its features respond to edges and colours and "
                    f"know no objects; what a trained {content.encoder} keeps of a photograph may be quite different. "
                    "Train with ",
                    code("--encoder-weights"),
                    " for that.",
                ),
            )
        )
    points.append(
        (
            "How it does on other photographs.",
            f"{count(photos, 'photograph')} {'is' if photos == 1 else 'are'} no benchmark: other ones, or more of them, "
            "move every percentage on this page. The paper measured on ImageNet's validation set.",
        )
    )
    return points
