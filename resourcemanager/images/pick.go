package images

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
)

const (
	// maxIndexDepth is how deeply indexes may be nested.
	maxIndexDepth = 4
	// maxPicked is how much of manifests and configs is read to find one image.
	maxPicked = 64 << 20
	// attestation is the annotation of what Docker's builder stores beside an image.
	attestation = "vnd.docker.reference.type"
)

// source is where images are read from: an archive or the store. It fails with errdefs.ErrNotFound for what it does not
// have.
type source interface {
	manifest(descriptor ocispec.Descriptor) ([]byte, error)
	config(sum digest.Digest) ([]byte, error)
}

// candidate is an image for the zone's nodes.
type candidate struct {
	digest   digest.Digest
	content  []byte
	manifest parsedManifest
	config   Config
}

// notAnImage is the error for something that is valid but not an image: a signature, an attestation, another artifact. It is
// skipped beside an image.
type notAnImage struct{ what string }

func (e *notAnImage) Error() string { return e.what }
func (e *notAnImage) Unwrap() error { return errdefs.ErrInvalidArgument }

func notImage(format string, args ...any) error {
	return &notAnImage{fmt.Sprintf(format, args...)}
}

// pick follows a descriptor, through indexes, to the image for the zone's nodes. It fails with a *platformError if all
// images are for other machines, and with a *notAnImage if there is none.
func (l Limits) pick(from source, descriptor ocispec.Descriptor) (*candidate, error) {
	p := &picker{limits: l, from: from, seen: map[digest.Digest]bool{}}
	return p.pick(descriptor, 0)
}

// picker reads each manifest once, however often it is referred to.
type picker struct {
	limits Limits
	from   source
	seen   map[digest.Digest]bool
	read   int
}

func (p *picker) pick(descriptor ocispec.Descriptor, depth int) (*candidate, error) {
	if err := describedAsImage(descriptor); err != nil {
		return nil, err
	}
	if depth > maxIndexDepth {
		return nil, invalid("the index is nested more than %d deep", maxIndexDepth)
	}
	if p.seen[descriptor.Digest] {
		return nil, notImage("%s is listed more than once", descriptor.Digest)
	}
	p.seen[descriptor.Digest] = true
	content, err := p.from.manifest(descriptor)
	if err != nil {
		return nil, err
	}
	if err := p.count(content); err != nil {
		return nil, err
	}
	m, err := parseManifest(content, descriptor.MediaType)
	if err != nil {
		return nil, err
	}
	if m.isIndex() {
		return p.fromIndex(m, depth)
	}
	if err := m.checkImage(); err != nil {
		return nil, err
	}
	written, err := p.from.config(m.Config.Digest)
	if err != nil {
		return nil, err
	}
	if err := p.count(written); err != nil {
		return nil, err
	}
	config, err := p.limits.parseConfig(written)
	if err != nil {
		return nil, err
	}
	return &candidate{digest: descriptor.Digest, content: content, manifest: m, config: config}, nil
}

func (p *picker) count(content []byte) error {
	if p.read += len(content); p.read > maxPicked {
		return fmt.Errorf("the image's index leads to more than %d MiB of manifests and configs: %w", maxPicked>>20, errdefs.ErrResourceExhausted)
	}
	return nil
}

// fromIndex tries the manifests for the zone's platform, plain ones before variants, and then those without a platform.
func (p *picker) fromIndex(index parsedManifest, depth int) (*candidate, error) {
	var others []string
	var tried []ocispec.Descriptor
	for _, descriptor := range index.Manifests {
		switch platform := descriptor.Platform; {
		case describedAsImage(descriptor) != nil:
		case platform == nil || runsOn(platform, p.limits.Architecture):
			tried = append(tried, descriptor)
		default:
			others = append(others, platformName(platform.OS, architecture(platform.Architecture)))
		}
	}
	slices.SortStableFunc(tried, func(a, b ocispec.Descriptor) int { return cmp.Compare(rank(a.Platform), rank(b.Platform)) })
	var failed error
	for _, descriptor := range tried {
		found, err := p.pick(descriptor, depth+1)
		foreign := (*platformError)(nil)
		switch {
		case err == nil:
			return found, nil
		case errors.As(err, &foreign):
			others = append(others, foreign.image...)
		case errors.As(err, new(*notAnImage)):
		case errors.Is(err, errdefs.ErrNotFound) && descriptor.Platform == nil:
			failed = cmp.Or(failed, err)
		default:
			return nil, err
		}
	}
	switch {
	case failed != nil:
		return nil, failed
	case others != nil:
		return nil, p.limits.wrongPlatform(others...)
	}
	return nil, notImage("the index has no image")
}

// describedAsImage returns an error if a descriptor is of something else than an image.
func describedAsImage(descriptor ocispec.Descriptor) error {
	switch platform := descriptor.Platform; {
	case platform != nil && (platform.OS == "unknown" || platform.Architecture == "unknown"),
		descriptor.Annotations[attestation] != "":
		return notImage("%s is an attestation, not an image", descriptor.Digest)
	case descriptor.ArtifactType != "" && !isConfigType(descriptor.ArtifactType):
		return notImage("%s is an artifact of the type %q, not an image", descriptor.Digest, descriptor.ArtifactType)
	}
	switch descriptor.MediaType {
	case "", distribution.MediaTypeManifest, distribution.MediaTypeOCIManifest, distribution.MediaTypeManifestList, distribution.MediaTypeOCIIndex:
		return nil
	}
	return notImage("%s is of the type %q, not an image", descriptor.Digest, descriptor.MediaType)
}

// checkImage returns an error if a manifest is of something else than an image.
func (m parsedManifest) checkImage() error {
	switch {
	case m.Subject != nil:
		return notImage("this is not an image but a signature or attestation of %s", m.Subject.Digest)
	case m.ArtifactType != "" && !isConfigType(m.ArtifactType):
		return notImage("this is not an image but an artifact of the type %q", m.ArtifactType)
	case !isConfigType(m.Config.MediaType):
		return notImage("this is not an image: its config is of the type %q", m.Config.MediaType)
	}
	if len(m.Layers) > 0 && !slices.ContainsFunc(m.Layers, isLayer) {
		return notImage("this is not an image: its content is of the type %q", m.Layers[0].MediaType)
	}
	return nil
}

// isConfigType reports whether an image's config may have this type. The oldest clients write none in particular.
func isConfigType(mediaType string) bool {
	return slices.Contains([]string{"", dockerConfig, ocispec.MediaTypeImageConfig, "application/octet-stream"}, mediaType)
}

func isLayer(descriptor ocispec.Descriptor) bool {
	return descriptor.MediaType == "" || descriptor.MediaType == "application/octet-stream" ||
		strings.HasPrefix(descriptor.MediaType, "application/vnd.docker.image.rootfs.") ||
		strings.HasPrefix(descriptor.MediaType, "application/vnd.oci.image.layer.")
}

// platformError is the error for a valid image for other machines.
type platformError struct {
	image []string
	nodes string
}

func (e *platformError) Error() string {
	return fmt.Sprintf("the image is for %s, this zone's nodes are %s", strings.Join(e.image[:min(len(e.image), 8)], ", "), e.nodes)
}

func (e *platformError) Unwrap() error { return errdefs.ErrInvalidArgument }

func (l Limits) wrongPlatform(image ...string) error {
	slices.Sort(image)
	return &platformError{image: slices.Compact(image), nodes: l.Architecture}
}

func platformName(os, architecture string) string {
	if os == "linux" || os == "" {
		return architecture
	}
	return os + "/" + architecture
}

func runsOn(platform *ocispec.Platform, machine string) bool {
	return strings.EqualFold(platform.OS, "linux") && architecture(platform.Architecture) == machine
}

// rank orders platforms: the plain one first, then variants, then none.
func rank(platform *ocispec.Platform) int {
	switch {
	case platform == nil:
		return 2
	case slices.Contains([]string{"", "v1", "v8", "8"}, platform.Variant):
		return 0
	}
	return 1
}

// architecture is Go's name for an architecture such as x86_64 or aarch64.
func architecture(name string) string {
	switch lower := strings.ToLower(name); lower {
	case "x86_64", "x86-64", "x64":
		return "amd64"
	case "aarch64", "arm64/v8", "armv8":
		return "arm64"
	default:
		return lower
	}
}
