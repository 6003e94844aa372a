// Package id has the typed identifiers of the zone. Their text forms are YARN's, so that a gateway can pass them on
// unchanged.
package id

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Node is the name of a host. It is stable over restarts of its NodeManager.
type Node string

// Queue is the name of a queue, unique in the zone.
type Queue string

// App identifies one installation of an app.
type App struct {
	// ClusterStart is when the zone was first started, in milliseconds since 1970.
	ClusterStart int64
	// Seq rises by one with every app of the zone.
	Seq int64
}

// Attempt identifies one run of an app's master.
type Attempt struct {
	App App
	// N starts at 1.
	N int32
}

// Container identifies a lease. It is never reused, not even by a ResourceManager that lost its records: the epoch rises
// with each start.
type Container struct {
	Epoch int64
	App   App
	// Seq rises by one with every container of the app in the epoch.
	Seq int64
}

// String is application_<cluster-start-ms>_<seq>, seq with at least four digits.
func (a App) String() string { return fmt.Sprintf("application_%d_%04d", a.ClusterStart, a.Seq) }

// IsZero reports whether a names no app.
func (a App) IsZero() bool { return a == App{} }

// Compare orders apps by their submission.
func (a App) Compare(b App) int {
	if a.ClusterStart != b.ClusterStart {
		return compare(a.ClusterStart, b.ClusterStart)
	}
	return compare(a.Seq, b.Seq)
}

// String is appattempt_<cluster-start-ms>_<seq>_<n>, n with six digits.
func (t Attempt) String() string {
	return fmt.Sprintf("appattempt_%d_%04d_%06d", t.App.ClusterStart, t.App.Seq, t.N)
}

// String is container_e<epoch>_<cluster-start-ms>_<app>_<seq>.
func (c Container) String() string {
	return fmt.Sprintf("container_e%d_%d_%04d_%06d", c.Epoch, c.App.ClusterStart, c.App.Seq, c.Seq)
}

// IsZero reports whether c names no container.
func (c Container) IsZero() bool { return c == Container{} }

// Compare orders containers by app, then by age.
func (c Container) Compare(d Container) int {
	if n := c.App.Compare(d.App); n != 0 {
		return n
	}
	if c.Epoch != d.Epoch {
		return compare(c.Epoch, d.Epoch)
	}
	return compare(c.Seq, d.Seq)
}

// ParseApp reads what App.String writes.
func ParseApp(text string) (App, error) {
	var a App
	if !scan(text, "application_", &a.ClusterStart, &a.Seq) {
		return App{}, fmt.Errorf("%q is not an app id (application_<start>_<app>)", text)
	}
	return a, nil
}

// ParseAttempt reads what Attempt.String writes.
func ParseAttempt(text string) (Attempt, error) {
	var t Attempt
	var n int64
	if !scan(text, "appattempt_", &t.App.ClusterStart, &t.App.Seq, &n) || n > math.MaxInt32 {
		return Attempt{}, fmt.Errorf("%q is not an attempt id (appattempt_<start>_<app>_<attempt>)", text)
	}
	t.N = int32(n)
	return t, nil
}

// ParseContainer reads what Container.String writes. It allocates nothing: the ResourceManager parses ids many times in each turn.
func ParseContainer(text string) (Container, error) {
	var c Container
	if !scan(text, "container_e", &c.Epoch, &c.App.ClusterStart, &c.App.Seq, &c.Seq) {
		return Container{}, fmt.Errorf("%q is not a container id (container_e<epoch>_<start>_<app>_<seq>)", text)
	}
	return c, nil
}

// scan reads a prefix and then exactly these numbers, with a _ between them.
func scan(text, prefix string, numbers ...*int64) bool {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return false
	}
	for i, number := range numbers {
		digits, after, more := strings.Cut(rest, "_")
		if more != (i < len(numbers)-1) {
			return false
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil {
			return false
		}
		*number, rest = int64(n), after
	}
	return true
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
