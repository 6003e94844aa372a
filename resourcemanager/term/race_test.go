//go:build race

package term

// underRace says that the race detector looks on. It makes everything some times slower, and finds nothing in what is played back.
const underRace = true
