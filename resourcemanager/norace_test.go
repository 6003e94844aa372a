//go:build !race

package resourcemanager

const underRace = false
