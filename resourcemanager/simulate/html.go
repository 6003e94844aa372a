package simulate

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

//go:embed report.html
var page string

// WriteHTML writes the report as one self-contained page.
func (r *Report) WriteHTML(to io.Writer) error {
	parsed, err := template.New("report").Funcs(template.FuncMap{
		"percent": func(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) },
		"span":    span,
		"hours":   func(coreSeconds float64) string { return fmt.Sprintf("%.1f", coreSeconds/3600) },
		"join":    func(names []string) string { return strings.Join(names, ", ") },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("the page's template: %w", err)
	}
	return parsed.Execute(to, struct {
		*Report
		Charts []chart
	}{r, r.charts()})
}

// chart is lines or bars over the simulated time, drawn in SVG.
type chart struct {
	Title, Unit string
	Lines       []series
	Bars        []bar
	Top         float64
	Ticks       []tickMark
	Marks       []tickMark
}

type series struct {
	Name, Colour, Path string
}

type bar struct {
	X, Y, Width, Height float64
	Label               string
}

type tickMark struct {
	At    float64
	Label string
}

// The drawing area of every chart.
const (
	chartWidth  = 860.0
	chartHeight = 220.0
)

var colours = []string{"#4063d8", "#cb3c33", "#389826", "#9558b2", "#b8860b", "#20808d", "#707070", "#e07b39"}

// charts draws utilisation, lending, pending, waiting times and stops.
func (r *Report) charts() []chart {
	if len(r.Points) == 0 {
		return nil
	}
	var queues []string
	for name := range r.Points[0].Used {
		queues = append(queues, name)
	}
	slices.Sort(queues)
	take := func(value func(Point) float64) []float64 {
		values := make([]float64, len(r.Points))
		for i, p := range r.Points {
			values[i] = value(p)
		}
		return values
	}
	names, values := []string{"all nodes"}, [][]float64{take(func(p Point) float64 { return p.CPU })}
	for _, name := range queues {
		names = append(names, name)
		values = append(values, take(func(p Point) float64 { return p.Used[name] }))
	}
	charts := []chart{r.lines("Use of the zone, by queue", "cores", names, values)}
	if len(r.Contracts) > 0 {
		charts = append(charts, r.lines("Lent capacity", "cores", []string{"on loan", "borrowed"},
			[][]float64{take(func(p Point) float64 { return p.Lent }), take(func(p Point) float64 { return p.Borrowed })}))
	}
	charts = append(charts, r.lines("Waiting", "cores asked for and not granted", []string{"pending"}, [][]float64{take(func(p Point) float64 { return p.Pending })}))
	for _, w := range r.Workloads {
		charts = append(charts, bars("Waiting time of "+w.Name, "containers", w.Waits, []string{"≤ 1s", "≤ 5s", "≤ 15s", "≤ 1m", "≤ 5m", "≤ 15m", "≤ 1h", "more"}))
	}
	if r.Stopped > 0 {
		charts = append(charts, r.lines("Containers stopped for others", "in each interval", []string{"stopped"}, [][]float64{take(func(p Point) float64 { return float64(p.Stopped) })}))
	}
	return charts
}

func (r *Report) lines(title, unit string, names []string, values [][]float64) chart {
	c := chart{Title: title, Unit: unit, Top: 1}
	for _, each := range values {
		c.Top = max(c.Top, slices.Max(each))
	}
	c.Top = roundUp(c.Top)
	end := max(r.Points[len(r.Points)-1].At, 1)
	for i, each := range values {
		var path strings.Builder
		for j, value := range each {
			command := "L"
			if j == 0 {
				command = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", command, r.Points[j].At/end*chartWidth, chartHeight*(1-value/c.Top))
		}
		c.Lines = append(c.Lines, series{names[i], colours[i%len(colours)], path.String()})
	}
	for i := range 7 {
		at := r.Start.Add(time.Duration(end * float64(i) / 6 * float64(time.Second)))
		c.Ticks = append(c.Ticks, tickMark{float64(i) / 6 * chartWidth, at.Format("15:04")})
	}
	c.scale()
	return c
}

func bars(title, unit string, counts []int, labels []string) chart {
	c := chart{Title: title, Unit: unit, Top: roundUp(float64(max(slices.Max(counts), 1)))}
	width := chartWidth / float64(len(counts))
	for i, n := range counts {
		height := chartHeight * float64(n) / c.Top
		c.Bars = append(c.Bars, bar{X: float64(i)*width + 8, Y: chartHeight - height, Width: width - 16, Height: height, Label: fmt.Sprintf("%s: %d", labels[i], n)})
		c.Ticks = append(c.Ticks, tickMark{(float64(i) + 0.5) * width, labels[i]})
	}
	c.scale()
	return c
}

// roundUp returns the smallest number that is at least top and whose quarters are round numbers.
func roundUp(top float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(top)))
	for _, times := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8} {
		if times*unit >= top {
			return times * unit
		}
	}
	return 10 * unit
}

// scale adds the tick marks of the vertical axis.
func (c *chart) scale() {
	for i := range 5 {
		part := float64(i) / 4
		c.Marks = append(c.Marks, tickMark{chartHeight * (1 - part), short(c.Top * part)})
	}
}

// short formats a number for an axis: 800, 24k, 1.5M.
func short(value float64) string {
	switch {
	case value >= 1e6:
		return fmt.Sprintf("%.4gM", value/1e6)
	case value >= 1e4:
		return fmt.Sprintf("%.4gk", value/1e3)
	}
	return fmt.Sprintf("%.4g", value)
}
