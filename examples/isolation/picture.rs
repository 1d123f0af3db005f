//! A minute of it, drawn.

use std::{ops::Range, path::Path, thread, time::Duration};

use palisade::BoxError;
use plotters::{coord::ranged1d::ValueFormatter, prelude::*};

use crate::{
    client::Call,
    guards::Guard,
    reading::{first_token, percentile},
    run::{Machine, Outcome, Span, run},
    workload::{BEGINS, Tier},
};

/// What is drawn, and on what.
const SHOWN: Range<f64> = 0.0..60.0;
const LEAVES: u64 = 45;
const SIZE: (u32, u32) = (960, 900);

/// Of the first panel, seconds that a point stands for; of the others it is one.
const BUCKET: usize = 2;

/// A guard's name in the legend, and its colour.
type Drawn = (Guard, &'static str, RGBColor);

const GUARDS: [Drawn; 3] = [
    (Guard::None, "no layer", RGBColor(120, 120, 120)),
    (Guard::Fair, "fair admission", RGBColor(0, 114, 178)),
    (Guard::FairYields, "fair admission, engine yields", RGBColor(0, 158, 115)),
];

/// Whose tokens: in a tier, and whether of the flood.
const WHOSE: [(Tier, bool, &str, RGBColor); 4] = [
    (Tier::Enterprise, false, "enterprise", RGBColor(0, 114, 178)),
    (Tier::Paid, false, "paid", RGBColor(86, 180, 233)),
    (Tier::Free, false, "free, honest", RGBColor(0, 158, 115)),
    (Tier::Free, true, "free, the flood", RGBColor(213, 94, 0)),
];

/// Draws the mean of so many runs: the enterprise's first tokens, and, with an engine that yields, whose the engine's tokens
/// are and what is lent.
pub(crate) fn draw(machine: &Machine, seeds: u64, file: &Path) -> Result<(), BoxError> {
    // Who comes within the minute can run out of patience.
    let span = Span {
        end: Duration::from_secs(95),
        warm: Duration::ZERO,
        leaves: Duration::from_secs(LEAVES),
    };
    let scene = machine.flood(1);
    let runs = |guard| (1..=seeds).map(|seed| run(machine, guard, scene, seed, span)).collect();
    let outcomes: Result<Vec<_>, BoxError> = thread::scope(|scope| {
        let workers = GUARDS.map(|(guard, ..)| {
            scope.spawn(move || -> Result<Vec<Outcome>, BoxError> { runs(guard) })
        });
        workers.into_iter().map(|worker| worker.join().map_err(|_| "a run panicked")?).collect()
    });
    let outcomes = outcomes?;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let [first, tokens, lent] = &root.split_evenly((3, 1))[..] else { return Ok(()) };
    first_tokens(first, &outcomes)?;
    let yields = outcomes.last().map_or(&[][..], Vec::as_slice);
    tokens_by_tier(tokens, yields)?;
    tokens_lent(lent, yields)?;
    root.present()?;
    Ok(())
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn first_tokens(panel: &Panel<'_>, outcomes: &[Vec<Outcome>]) -> Result<(), BoxError> {
    let mut chart = ChartBuilder::on(panel)
        .caption("Enterprise: time to the first token, 99th percentile, ms", TITLE)
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(SHOWN, (10.0..LONGEST).log_scale())?;
    mesh(&mut chart)?;
    let (begins, leaves) = (BEGINS.as_secs_f64(), LEAVES as f64);
    for at in [begins, leaves] {
        chart.draw_series([PathElement::new([(at, 10.0), (at, LONGEST)], BLACK.mix(0.4))])?;
    }
    let texts = [(begins, "the flood begins"), (leaves, "the abuser leaves")];
    chart.draw_series(texts.map(|(at, text)| Text::new(text, (at + 0.5, 15.0), LABEL)))?;
    for ((_, name, colour), outcomes) in GUARDS.into_iter().zip(outcomes) {
        let mut buckets = vec![Vec::new(); SHOWN.end as usize / BUCKET];
        for call in outcomes.iter().flat_map(|outcome| &outcome.calls) {
            let bucket = buckets.get_mut(call.ask.at.as_secs() as usize / BUCKET);
            if let Some(bucket) = bucket.filter(|_| call.ask.tier == Tier::Enterprise) {
                bucket.push(first_token(call));
            }
        }
        let points = buckets.iter_mut().enumerate().map(|(at, bucket)| {
            (((at * BUCKET) as f64) + BUCKET as f64 / 2.0, percentile(bucket, 0.99))
        });
        let line = LineSeries::new(points, colour.stroke_width(2));
        chart.draw_series(line)?.label(name).legend(move |at| swatch(at, colour));
    }
    legend(&mut chart, SeriesLabelPosition::LowerMiddle)
}

fn tokens_by_tier(panel: &Panel<'_>, outcomes: &[Outcome]) -> Result<(), BoxError> {
    let count = |whose: fn(&Call) -> (Tier, bool), of: (Tier, bool)| {
        let mut seconds = vec![0.0; SHOWN.end as usize];
        let calls = outcomes.iter().flat_map(|outcome| &outcome.calls);
        for at in calls.filter(|call| whose(call) == of).flat_map(|call| &call.tokens) {
            if let Some(second) = seconds.get_mut(*at as usize / 1_000_000) {
                *second += 1.0 / outcomes.len() as f64;
            }
        }
        seconds
    };
    let counts = WHOSE.map(|(tier, abuse, name, colour)| {
        (name, colour, count(|call| (call.ask.tier, call.ask.abuse), (tier, abuse)))
    });
    let title = "Tokens a second, fair admission, engine yields";
    stacked(panel, title, &counts)
}

fn tokens_lent(panel: &Panel<'_>, outcomes: &[Outcome]) -> Result<(), BoxError> {
    let lent = Tier::ALL.iter().enumerate().filter(|(_, tier)| **tier != Tier::Enterprise);
    let counts: Vec<_> = lent
        .filter_map(|(at, tier)| {
            let (.., name, colour) = WHOSE.iter().rev().find(|(of, ..)| of == tier)?;
            let name = if *tier == Tier::Free { "free" } else { name };
            let mut seconds = vec![(0.0, 0.0); SHOWN.end as usize];
            for look in outcomes.iter().flat_map(|outcome| &outcome.looks) {
                let borrowed = look.borrowed.get(at).copied().unwrap_or_default();
                if let Some((sum, count)) = seconds.get_mut(look.at.as_secs() as usize) {
                    *sum += borrowed as f64;
                    *count += 1.0;
                }
            }
            let means = seconds.into_iter().map(|(sum, count)| sum / f64::max(count, 1.0));
            Some((name, *colour, means.collect()))
        })
        .collect();
    stacked(panel, "Tokens in flight beyond a tier's share, of 80,000: the same", &counts)
}

/// One value a second of each, one upon the other.
fn stacked(
    panel: &Panel<'_>,
    title: &str,
    series: &[(&str, RGBColor, Vec<f64>)],
) -> Result<(), BoxError> {
    let mut tops = Vec::new();
    let mut top = vec![0.0; SHOWN.end as usize];
    for (name, colour, values) in series {
        top.iter_mut().zip(values).for_each(|(top, value)| *top += value);
        tops.push((*name, *colour, top.clone()));
    }
    let highest = top.into_iter().fold(1.0, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(panel)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(SHOWN, 0.0..highest)?;
    mesh(&mut chart)?;
    for (name, colour, top) in tops.into_iter().rev() {
        let points = top.into_iter().enumerate().map(|(second, top)| (second as f64 + 0.5, top));
        let area = AreaSeries::new(points, 0.0, colour.filled());
        chart.draw_series(area)?.label(name).legend(move |at| swatch(at, colour));
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn mesh<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
) -> Result<(), BoxError>
where
    X: Axis,
    Y: Axis,
{
    let whole = |value: &f64| format!("{value:.0}");
    Ok(chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .draw()?)
}

/// An axis of numbers.
trait Axis: Ranged<ValueType = f64> + ValueFormatter<f64> {}

impl<A: Ranged<ValueType = f64> + ValueFormatter<f64>> Axis for A {}

fn legend<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    at: SeriesLabelPosition,
) -> Result<(), BoxError>
where
    X: Axis,
    Y: Axis,
{
    Ok(chart
        .configure_series_labels()
        .position(at)
        .background_style(WHITE.mix(0.9))
        .label_font(LABEL)
        .draw()?)
}

fn swatch((x, y): (i32, i32), colour: RGBColor) -> Rectangle<(i32, i32)> {
    Rectangle::new([(x, y - 4), (x + 16, y + 4)], colour.filled())
}

/// Milliseconds.
const LONGEST: f64 = 100_000.0;
const TITLE: (&str, u32) = ("sans-serif", 18);
const LABEL: (&str, u32) = ("sans-serif", 13);
