// Package integration runs whole zones on a real Docker Engine and looks at them as a person would: with the command
// line, curl and docker.
package integration
