package scheduler

// named is all that the zone has of apps with one name: what affinity and anti-affinity are about.
type appName struct {
	name string
	apps int
	held int
	// nodes is kept only when some ask names it.
	tracked bool
	nodes   bitmap
	// repelledBy are those whose asks declared anti-affinity to this one; it holds in both directions.
	repelledBy []*appName
}
