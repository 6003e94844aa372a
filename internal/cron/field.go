package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// longest is how long an expression may be.
const longest = 256

// field is one of the five of an expression.
type field struct {
	what     string
	min, max int
	names    []string
}

var fieldsInOrder = [...]field{
	{what: "minute", max: 59},
	{what: "hour", max: 23},
	{what: "day of the month", min: 1, max: 31},
	{what: "month", min: 1, max: 12, names: []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
	{what: "day of the week", max: 7, names: []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}},
}

// errNumber means that an item is not a number or name of its field.
var errNumber = errors.New("")

// calendar is a parsed expression: a set of numbers for each field, as bits.
type calendar struct {
	minutes, hours, days, months, weekdays uint64
	// lastDay is true for the last day of every month. lastWeekdays are weekdays such as the last Friday of a month, and
	// nthWeekdays[n] such as the n-th.
	lastDay      bool
	lastWeekdays uint64
	nthWeekdays  [6]uint64
	// either is true if one of the day of the month and the day of the week must match; otherwise both must.
	either bool
}

// parse reads an expression. It fails if any item of any list is wrong.
func parse(expression string) (calendar, error) {
	var c calendar
	if len(expression) > longest {
		return c, fmt.Errorf("a cron expression has at most %d characters, not %d", longest, len(expression))
	}
	texts := strings.Fields(expression)
	if len(texts) != len(fieldsInOrder) {
		return c, fmt.Errorf("%q is not a cron expression of five fields, as in \"0 22 * * *\"", expression)
	}
	sets := [...]*uint64{&c.minutes, &c.hours, &c.days, &c.months, &c.weekdays}
	for i, f := range fieldsInOrder {
		for item := range strings.SplitSeq(texts[i], ",") {
			if c.special(f, item) {
				continue
			}
			set, err := f.items(item)
			if err != nil {
				wrong := strconv.Quote(item)
				if item != texts[i] {
					wrong += " in " + strconv.Quote(texts[i])
				}
				return c, fmt.Errorf("%q is not a cron expression, as in \"0 22 * * *\": %s is no %s%w", expression, wrong, f.what, err)
			}
			*sets[i] |= set
		}
	}
	if c.weekdays&(1<<7) != 0 {
		c.weekdays |= 1 // Sunday is 0 and 7
	}
	open := func(text string) bool { return text[0] == '*' || text[0] == '?' }
	c.either = !open(texts[2]) && !open(texts[4])
	return c, nil
}

// special reads the items that are not numbers of days: L, the last day of the month; 5L, its last Friday; 5#2, its second one.
func (c *calendar) special(f field, item string) bool {
	switch f.what {
	case "day of the month":
		c.lastDay = c.lastDay || item == "L"
		return item == "L"
	case "day of the week":
		if day, ok := strings.CutSuffix(item, "L"); ok {
			if n, err := f.number(day); err == nil {
				c.lastWeekdays |= 1 << (n % 7)
				return true
			}
			return false
		}
		day, nth, ok := strings.Cut(item, "#")
		if !ok || len(nth) != 1 || nth[0] < '1' || nth[0] > '5' {
			return false
		}
		if n, err := f.number(day); err == nil {
			c.nthWeekdays[nth[0]-'0'] |= 1 << (n % 7)
			return true
		}
	}
	return false
}

// items parses *, 5, 1-5, */15, 1-30/5 and 5/15, which continues to the end.
func (f field) items(item string) (uint64, error) {
	span, stepText, hasStep := strings.Cut(item, "/")
	step := 1
	if hasStep {
		var ok bool
		if step, ok = digits(stepText); !ok || step == 0 {
			return 0, fmt.Errorf(": %q is no step", stepText)
		}
		if step > f.max-f.min {
			return 0, fmt.Errorf(": a step of %d goes beyond it", step)
		}
	}
	from, to := f.min, f.max
	switch first, last, isRange := strings.Cut(span, "-"); {
	case span == "*", span == "?" && (f.what == "day of the month" || f.what == "day of the week"):
		if f.what == "day of the week" {
			to = 6
		}
	default:
		var err error
		if from, err = f.number(first); err != nil {
			return 0, err
		}
		if !hasStep {
			to = from
		}
		if isRange {
			if to, err = f.number(last); err != nil {
				return 0, err
			}
			if to < from {
				return 0, fmt.Errorf(": %s comes before %s", last, first)
			}
		}
	}
	set := uint64(0)
	for n := from; n <= to; n += step {
		set |= 1 << n
	}
	return set, nil
}

func (f field) number(text string) (int, error) {
	if i := slices.Index(f.names, strings.ToUpper(text)); i >= 0 {
		return i + f.min, nil
	}
	n, ok := digits(text)
	if !ok || n < f.min || n > f.max {
		return 0, errNumber
	}
	return n, nil
}

// digits reads a number of one or two digits.
func digits(text string) (int, bool) {
	for _, letter := range text {
		if letter < '0' || letter > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && len(text) <= 2
}

// hasDay reports whether an expression fires on the day that begins at a wall time.
func (c *calendar) hasDay(day time.Time) bool {
	_, month, d := day.Date()
	if c.months&(1<<month) == 0 {
		return false
	}
	weekday := day.Weekday()
	inMonth := c.days&(1<<d) != 0 || c.lastDay && day.AddDate(0, 0, 1).Day() == 1
	inWeek := c.weekdays&(1<<weekday) != 0 || c.nthWeekdays[(d+6)/7]&(1<<weekday) != 0 ||
		c.lastWeekdays&(1<<weekday) != 0 && day.AddDate(0, 0, 7).Day() <= 7
	if c.either {
		return inMonth || inWeek
	}
	return inMonth && inWeek
}

// yearsAhead is how far to look for the next time: 29 February on a certain weekday can be forty years away.
const yearsAhead = 41

const dayLong = 24 * time.Hour

// next is the first matching wall time after another.
func (c *calendar) next(wall time.Time) (time.Time, bool) {
	wall = wall.Truncate(time.Minute).Add(time.Minute)
	day := wall.Truncate(dayLong)
	minute := int(wall.Sub(day) / time.Minute)
	for end := day.AddDate(yearsAhead, 0, 0); day.Before(end); minute = 0 {
		if c.hasDay(day) {
			if found := c.minuteFrom(minute); found >= 0 {
				return day.Add(time.Duration(found) * time.Minute), true
			}
		}
		if c.months&(1<<day.Month()) == 0 {
			day = time.Date(day.Year(), day.Month()+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		}
		day = day.Add(dayLong)
	}
	return time.Time{}, false
}

// last is the last matching wall time up to another.
func (c *calendar) last(wall time.Time) (time.Time, bool) {
	day := wall.Truncate(dayLong)
	minute := int(wall.Sub(day) / time.Minute)
	for end := day.AddDate(-yearsAhead, 0, 0); day.After(end); minute = 24*60 - 1 {
		if c.hasDay(day) {
			if found := c.minuteUntil(minute); found >= 0 {
				return day.Add(time.Duration(found) * time.Minute), true
			}
		}
		if c.months&(1<<day.Month()) == 0 {
			day = time.Date(day.Year(), day.Month(), 0, 0, 0, 0, 0, time.UTC)
			continue
		}
		day = day.Add(-dayLong)
	}
	return time.Time{}, false
}

// minuteFrom is the first minute of a day, from one on, at which the expression fires; -1 if there is none.
func (c *calendar) minuteFrom(minute int) int {
	for hour := minute / 60; hour < 24; hour++ {
		minutes := c.minutes
		if hour == minute/60 {
			minutes &= ^uint64(0) << (minute % 60)
		}
		if c.hours&(1<<hour) != 0 && minutes != 0 {
			return hour*60 + bits.TrailingZeros64(minutes)
		}
	}
	return -1
}

// minuteUntil is the last minute of a day, up to one, at which the expression fires; -1 if there is none.
func (c *calendar) minuteUntil(minute int) int {
	for hour := minute / 60; hour >= 0; hour-- {
		minutes := c.minutes
		if hour == minute/60 {
			minutes &= 1<<(minute%60+1) - 1
		}
		if c.hours&(1<<hour) != 0 && minutes != 0 {
			return hour*60 + bits.Len64(minutes) - 1
		}
	}
	return -1
}

// isHourly reports whether an expression fires in every hour of a day.
func (c *calendar) isHourly() bool { return c.hours == 1<<24-1 }
