// Package arch holds the rules of the repository as tests: which way imports run, what the pure ring may not
// touch, and the habits that a reader relies on.
package arch
