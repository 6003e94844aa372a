package images

import (
	"archive/tar"
	"path"
	"strings"
)

// accounts is the content of /etc/passwd or /etc/group in an image, as far as layers were read.
type accounts struct {
	state accountsState
	// text is the content of the file, if it is known.
	text string
}

// imageFiles is what is known of an image's files: its users, its groups, and its root, which is nil if a layer was too
// large to be kept in memory.
type imageFiles struct {
	users, groups accounts
	root          rootfs
}

type accountsState byte

const (
	// accountsUntouched: the layer does not have the file.
	accountsUntouched accountsState = iota
	// accountsKnown: the file was read.
	accountsKnown
	// accountsGone: the layer deletes the file.
	accountsGone
	// accountsUnclear: the file is a link or too large to read.
	accountsUnclear
)

// overlay applies a layer's file to the one of the layers below.
func (a accounts) overlay(below accounts) accounts {
	if a.state == accountsUntouched {
		return below
	}
	return a
}

// lacks reports whether a name is certainly missing.
func (a accounts) lacks(name string) bool {
	switch a.state {
	case accountsUntouched, accountsGone:
		return true
	case accountsKnown:
		for line := range strings.Lines(a.text) {
			if first, _, _ := strings.Cut(strings.TrimSpace(line), ":"); first == name {
				return false
			}
		}
		return true
	}
	return false
}

// afterEntry is the file after an entry of its name, or one that hides it or replaces its folder. An entry only hides files
// of lower layers, wherever in the layer it stands.
func (a accounts) afterEntry(header *tar.Header) accounts {
	base := path.Base(header.Name)
	switch {
	case strings.HasPrefix(base, whiteout) && a.state != accountsUntouched:
		return a
	case strings.HasPrefix(base, whiteout):
		return accounts{state: accountsGone}
	case header.Typeflag == tar.TypeReg && header.Size <= maxAccounts && base != "etc":
		return accounts{state: accountsKnown}
	}
	return accounts{state: accountsUnclear}
}
