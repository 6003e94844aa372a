package distribution

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	maxNameLength = 255
	maxTagLength  = 128
)

// Reference identifies an image: a repository with a tag, a digest or both.
type Reference struct {
	Repository string
	// Tag may be empty when Digest is set.
	Tag    string
	Digest digest.Digest
}

// String is the reference as ParseReference reads it.
func (r Reference) String() string {
	text := r.Repository
	if r.Tag != "" {
		text += ":" + r.Tag
	}
	if r.Digest != "" {
		text += "@" + r.Digest.String()
	}
	return text
}

// ParseReference parses NAME, NAME:TAG, NAME@DIGEST or NAME:TAG@DIGEST. Without tag and digest the tag is "latest". A prefix
// that only locates a registry is dropped: an address with a port, and a host before "library/". It fails with
// errdefs.ErrInvalidArgument.
func ParseReference(text string) (Reference, error) {
	var ref Reference
	name, sum, hasDigest := strings.Cut(text, "@")
	if hasDigest {
		ref.Digest = digest.Digest(sum)
		if err := ref.Digest.Validate(); err != nil {
			return ref, fmt.Errorf("%q is not an image name: %q is not a digest: %w", text, sum, errdefs.ErrInvalidArgument)
		}
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, ref.Tag = name[:colon], name[colon+1:]
		if !ValidTag(ref.Tag) {
			return ref, fmt.Errorf("%q is not an image name: the tag %q must be of letters, digits, dots, dashes and underscores: %w",
				text, ref.Tag, errdefs.ErrInvalidArgument)
		}
	} else if !hasDigest {
		ref.Tag = "latest"
	}
	name = withoutHost(name)
	if !ValidName(name) {
		return ref, fmt.Errorf("%q is not an image name: it must be of small letters, digits, single dots, dashes and slashes, as in team/web:1.0: %w",
			text, errdefs.ErrInvalidArgument)
	}
	ref.Repository = name
	return ref, nil
}

func withoutHost(name string) string {
	for {
		host, path, ok := strings.Cut(name, "/")
		official, isOfficial := strings.CutPrefix(path, "library/")
		switch {
		case ok && isOfficial && strings.ContainsAny(host, ".:"):
			name = official
		case ok && (host == "localhost" || strings.Contains(host, ":")):
			name = path
		default:
			return name
		}
	}
}

// ValidName reports whether name is a repository's: components joined by slashes, each of small letters and digits
// joined by a dot, one or two underscores, or dashes.
func ValidName(name string) bool {
	if len(name) > maxNameLength {
		return false
	}
	for component := range strings.SplitSeq(name, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

func validComponent(component string) bool {
	for {
		word := 0
		for word < len(component) && isAlphanumeric(component[word]) {
			word++
		}
		if word == 0 {
			return false
		}
		component = component[word:]
		if component == "" {
			return true
		}
		switch {
		case component[0] == '.':
			component = component[1:]
		case component[0] == '-':
			component = strings.TrimLeft(component, "-")
		case strings.HasPrefix(component, "__"):
			component = component[2:]
		case component[0] == '_':
			component = component[1:]
		default:
			return false
		}
	}
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

// ValidTag reports whether tag is one: up to 128 letters, digits, underscores, dots and dashes, the first of them
// neither a dot nor a dash.
func ValidTag(tag string) bool {
	if tag == "" || len(tag) > maxTagLength || tag[0] == '.' || tag[0] == '-' {
		return false
	}
	for _, c := range []byte(tag) {
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// Tagged is an image's name with the default tag if it has none, as an image store finds it. A name with a digest is not looked up by its
// tag.
func Tagged(image string) string {
	ref, err := ParseReference(image)
	if err != nil {
		return image
	}
	return ref.String()
}
