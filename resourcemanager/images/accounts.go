package images

import (
	"archive/tar"
	"path"
	"strings"
)

// accounts are the users or groups that an image's own file names, as far as layers were read.
type accounts struct {
	state accountsState
	// text is the file, if it is known.
	text string
}

// imageFiles are what is known of an image's files: its users, its groups, and its root, which is nil if a layer was too
// large to be kept in memory.
type imageFiles struct {
	users, groups accounts
	root          rootfs
}

type accountsState byte

const (
	// accountsUntouched: the layer says nothing of the file.
	accountsUntouched accountsState = iota
	// accountsKnown: the file was read.
	accountsKnown
	// accountsGone: the layer deletes the file.
	accountsGone
	// accountsUnclear: the file is a link, or too large to be looked at.
	accountsUnclear
)

// over lays a layer's file over those of the layers below.
func (a accounts) over(below accounts) accounts {
	if a.state == accountsUntouched {
		return below
	}
	return a
}

// lacks reports whether a name is certainly not among them.
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

// replaced is what becomes of the file by an entry of its name, or one that hides it or stands in its folder's place.
// What a layer hides is only what lower layers hold, in whatever order it says so.
func (a accounts) replaced(header *tar.Header) accounts {
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
