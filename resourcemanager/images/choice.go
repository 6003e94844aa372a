package images

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
)

// choice is a person's choice of one image of an archive, and its new name.
type choice struct {
	// written is the text of the person, name the full name. Both are empty if none was given.
	written, name, tag string
	digest             digest.Digest
}

// parseChoice reads NAME, NAME:TAG or NAME:TAG@DIGEST. The digest of the manifest or config only chooses the image.
func parseChoice(text string) (choice, error) {
	if text == "" {
		return choice{}, nil
	}
	ref, err := distribution.ParseReference(text)
	if err != nil {
		return choice{}, err
	}
	c := choice{written: text, digest: ref.Digest}
	if ref.Digest != "" && ref.Tag == "" {
		return c, invalid("an image is imported under a tag, not under the digest in %q alone", text)
	}
	ref.Digest = ""
	c.name, c.tag = ref.String(), ref.Tag
	return c, nil
}

// pickFrom returns the chosen image under its new name.
func (c choice) pickFrom(images []*archivedImage) (*archivedImage, error) {
	chosen := c.matching(images)
	if len(chosen) != 1 {
		return nil, c.ambiguous(images)
	}
	image := chosen[0]
	if c.name != "" {
		image.names = []string{c.name}
	}
	if len(image.names) > 0 {
		return image, nil
	}
	if len(image.refs) > 0 {
		return nil, invalid("the archive has only %s for its image, and no name; give one, as in web:%s", shortened(image.refs[0]), tagLike(image.refs))
	}
	return nil, invalid("the archive has no name for its image; give one, as in web:1.0")
}

// matching returns the images that match best: by the digest, else by the full name, else by exactly what the archive calls
// it, else by the tag if only one image has it.
func (c choice) matching(images []*archivedImage) []*archivedImage {
	if c.digest != "" {
		return filter(images, func(i *archivedImage) bool { return i.digest == c.digest || i.manifest.Config.Digest == c.digest })
	}
	if len(images) == 1 {
		return images
	}
	if c.written == "" {
		return nil
	}
	for _, is := range []func(*archivedImage) bool{
		func(i *archivedImage) bool { return slices.Contains(i.names, c.name) },
		func(i *archivedImage) bool { return slices.Contains(i.refs, c.written) },
		func(i *archivedImage) bool {
			return slices.Contains(i.refs, c.tag) || slices.ContainsFunc(i.names, func(name string) bool { return strings.HasSuffix(name, ":"+c.tag) })
		},
	} {
		if found := filter(images, is); len(found) > 0 {
			return found
		}
	}
	return nil
}

func filter(images []*archivedImage, is func(*archivedImage) bool) []*archivedImage {
	return slices.DeleteFunc(slices.Clone(images), func(i *archivedImage) bool { return !is(i) })
}

// ambiguous is an error that lists the images and how to choose one.
func (c choice) ambiguous(images []*archivedImage) error {
	const most = 8
	var listed []string
	times := map[string]int{}
	for _, image := range images {
		for _, call := range slices.Concat(image.names, image.refs) {
			times[call]++
		}
	}
	example := ""
	for _, image := range images {
		calls := slices.Concat(image.names, image.refs)
		for _, call := range calls {
			if times[call] > 1 { // Several have that name.
				listed = append(listed, shortened(call)+"@"+image.digest.String())
				continue
			}
			if example == "" && distribution.ValidTag(call) {
				example = fmt.Sprintf("%s` or `mammoth image push FILE web:%s", call, call)
			}
			if !distribution.ValidTag(call) && !slices.Contains(image.names, call) {
				call = shortened(call)
			}
			listed = append(listed, call)
		}
		if len(calls) == 0 {
			listed = append(listed, "without a name @"+image.digest.String())
		}
	}
	switch {
	case example != "":
	case len(images[0].names) > 0 && times[images[0].names[0]] == 1:
		example = images[0].names[0]
	case len(images[0].names) > 0:
		example = images[0].names[0] + "@" + images[0].digest.String()
	default:
		example = "web:1.0@" + images[0].digest.String()
	}
	if len(listed) > most {
		listed = append(listed[:most], fmt.Sprintf("and %d more", len(listed)-most))
	}
	holds := fmt.Sprintf("the archive has %d images (%s)", len(images), strings.Join(listed, ", "))
	if len(images) == 1 {
		holds = fmt.Sprintf("the archive has one image (%s)", strings.Join(listed, ", "))
	}
	if c.written != "" {
		holds += fmt.Sprintf(", and %q does not identify one", c.written)
	}
	return invalid("%s; add the name of one after the file, as in `mammoth image push FILE %s`", holds, example)
}

// tagLike is the first text that can be a tag.
func tagLike(refs []string) string {
	for _, ref := range refs {
		if distribution.ValidTag(ref) {
			return ref
		}
	}
	return "1.0"
}

// foundImages collects the images of an archive that are for the zone's nodes.
type foundImages struct {
	images []*archivedImage
	// foreign is the error of an image for other machines, other that of what is not an image.
	foreign, other error
}

// add adds an image, or why there is none. Images for other machines and what is not an image are skipped.
func (f *foundImages) add(image *archivedImage, err error) error {
	switch {
	case errors.As(err, new(*platformError)):
		f.foreign = err
		return nil
	case errors.As(err, new(*notAnImage)):
		f.other = err
		return nil
	case err != nil:
		return err
	}
	same := slices.IndexFunc(f.images, func(other *archivedImage) bool { return other.digest == image.digest })
	if same < 0 {
		f.images = append(f.images, image)
		return nil
	}
	f.images[same].names = union(f.images[same].names, image.names)
	f.images[same].refs = union(f.images[same].refs, image.refs)
	return nil
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

func (f *foundImages) all(file string) ([]*archivedImage, error) {
	switch {
	case len(f.images) > 0:
		return f.images, nil
	case f.foreign != nil:
		return nil, f.foreign
	case f.other != nil:
		return nil, fmt.Errorf("the archive has no image: %w", f.other)
	}
	return nil, invalid("the archive's %s has no image", file)
}

// fullNames returns the texts that can be names of images, without duplicates.
func fullNames(texts []string) []string {
	var names []string
	for _, text := range texts {
		if ref, err := distribution.ParseReference(text); err == nil && ref.Digest == "" && !slices.Contains(names, ref.String()) {
			names = append(names, ref.String())
		}
	}
	return names
}

// namesOf returns an image's full names, those that `docker save` wrote before those of its descriptor, and the other texts
// of its descriptor.
func (a *archive) namesOf(image *candidate, descriptor ocispec.Descriptor, saved []savedImage) (names, refs []string) {
	for _, item := range saved {
		if config, ok := a.file(item.Config); ok && config.digest == image.manifest.Config.Digest {
			names = union(names, fullNames(item.RepoTags))
		}
	}
	ref := descriptor.Annotations[ocispec.AnnotationRefName]
	if names == nil {
		names = fullNames([]string{descriptor.Annotations[containerImageName]})
	}
	if strings.ContainsAny(ref, ":/") {
		if names == nil {
			names = fullNames([]string{ref})
		}
	} else if ref != "" && names == nil {
		refs = []string{ref} // Alone it is a tag.
	}
	return names, refs
}

// missing is the error for content that an archive refers to and does not have.
type missing struct{ what string }

func (e *missing) Error() string   { return e.what }
func (e *missing) Unwrap() []error { return []error{errdefs.ErrInvalidArgument, errdefs.ErrNotFound} }
