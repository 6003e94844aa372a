//go:build !race

package term

const underRace = false
