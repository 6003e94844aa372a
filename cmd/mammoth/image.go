package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/imagefile"
	"github.com/mammoth-os/mammoth/internal/manifest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// imageCommands pack images, and manage those of the zone's store.
type imageCommands struct {
	client
	uploads *uploader
}

func (c *imageCommands) imageCommand() *cobra.Command {
	return group("image", "Pack, upload and list images",
		c.imagePackCommand(), c.imagePushCommand(), c.imageListCommand(), c.imageRemoveCommand())
}

func (c *imageCommands) imageListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the images in the zone's store",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.images.ListImages(cmd.Context(), &apiv1.ListImagesRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return imageTable(w, answer) })
			})
		},
	}
}

func imageTable(w io.Writer, answer *apiv1.ListImagesResponse) error {
	t := newTable(w, "NAME", "DIGEST", "ARCHITECTURE", "LAYERS", "SIZE", "AGE")
	for _, image := range answer.GetImages() {
		t.row(image.GetName(), shortDigest(image.GetDigest()), image.GetArchitecture(), len(image.GetLayers()),
			size(image.GetSizeBytes()), ago(image.GetCreatedAt()))
	}
	return t.Flush()
}

func (c *imageCommands) imageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME:TAG",
		Short:             "Forget an image; layers that nothing needs any more are deleted",
		Args:              names("the name of an image"),
		ValidArgsFunction: firstArgument(c.completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.images.RemoveImage(cmd.Context(), &apiv1.RemoveImageRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s: removed, %s freed\n", args[0], size(answer.GetFreedBytes()))
					return err
				})
			})
		},
	}
}

func (c *imageCommands) imagePackCommand() *cobra.Command {
	options := imagefile.PackOptions{}
	var ports []string
	var output string
	cmd := &cobra.Command{
		Use:   "pack DIR|BINARY -o F.image",
		Short: "Make an image of a static program or a folder, without Docker",
		Long: `Pack makes an image file of a static program, which is then what runs, or of a folder,
which becomes the image's whole file system.`,
		Example: "  mammoth image pack ./hello -o hello.image --port 8080",
		Args:    names("a program or a folder"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains([]string{"table", "json", "yaml"}, output) {
				return usagef("-o is the file to write here; write ./%s if it is to be called that", output)
			}
			options.Source, options.Output = args[0], output
			if options.Output == "" {
				options.Output = strings.TrimSuffix(filepath.Base(filepath.Clean(args[0])), imagefile.Suffix) + imagefile.Suffix
			}
			for i, text := range ports {
				port, err := manifest.ParsePort(text, i)
				if err != nil {
					return usagef("--port: %w", err)
				}
				options.Ports = append(options.Ports, int(port.GetContainerPort()))
			}
			if output == "-" {
				return c.packToOutput(options)
			}
			if err := imagefile.Pack(options); err != nil {
				return plainPathError(err)
			}
			_, err := fmt.Fprintf(c.out, "%s\n", options.Output)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "", "the file to write, - for standard output (default: the source's name with .image)")
	flags.StringVar(&options.Name, "name", "", "the image's NAME:TAG (default: the file's name)")
	flags.StringArrayVar(&ports, "port", nil, "a port that the program listens on; repeatable")
	flags.StringArrayVar(&options.Entrypoint, "entrypoint", nil, "a word of what runs; repeatable (default: the program)")
	flags.StringArrayVar(&options.Args, "arg", nil, "an argument for what runs; repeatable")
	flags.StringArrayVar(&options.Env, "env", nil, "an environment variable, NAME=VALUE; repeatable")
	flags.StringToStringVar(&options.Labels, "label", nil, "a label, NAME=VALUE; repeatable")
	flags.StringVar(&options.User, "user", "", "the user to run as")
	flags.StringVar(&options.WorkingDir, "working-dir", "", "the folder to run in")
	return cmd
}

// packToOutput writes the image file to standard output, through a temporary one since the sizes of its parts come first.
func (c *imageCommands) packToOutput(options imagefile.PackOptions) error {
	dir, err := os.MkdirTemp("", "mammoth-pack-")
	if err != nil {
		return plainPathError(err)
	}
	defer os.RemoveAll(dir)
	options.Output = filepath.Join(dir, filepath.Base(filepath.Clean(options.Source))+imagefile.Suffix)
	if err := imagefile.Pack(options); err != nil {
		return plainPathError(err)
	}
	file, err := os.Open(options.Output)
	if err != nil {
		return plainPathError(err)
	}
	defer file.Close()
	if _, err := io.Copy(c.out, file); err != nil {
		return fmt.Errorf("write the image to standard output: %w", err)
	}
	return nil
}

func (c *imageCommands) imagePushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push F.image|- [NAME:TAG]",
		Short: "Upload an image to the zone's store",
		Long: `Push uploads what "docker save" or "mammoth image pack" made; "-" is standard input.
After a broken connection the upload continues where it ended.`,
		Example: "  mammoth image push hello.image\n  docker save some/image:1 | mammoth image push - some/image:1",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return names("an image file, or - for standard input")(cmd, args)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			image, err := c.uploads.pushFrom(cmd.Context(), args[0], name)
			if err != nil {
				return err
			}
			return c.print(image, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %s in %s, %s\n", image.GetName(), size(image.GetSizeBytes()), plural(len(image.GetLayers()), "layer"), shortDigest(image.GetDigest()))
				return err
			})
		},
	}
}

// uploader uploads image files, and those of standard input, to the zone's store.
type uploader struct {
	*dialer
	in  io.Reader
	err io.Writer
}

// pushFrom uploads a file or, with "-", standard input. Without a name it uses the archive's own.
func (up *uploader) pushFrom(ctx context.Context, path, name string) (*apiv1.Image, error) {
	content, total := up.in, int64(0)
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usageError{plainPathError(err)}
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return nil, plainPathError(err)
		}
		if info.IsDir() {
			return nil, usagef("%s is a folder; make an image of it with `mammoth image pack %s -o %s.image`", path, path, filepath.Base(path))
		}
		content, total = file, info.Size()
	}
	return up.push(ctx, upload{path: path, name: name, content: content, total: total})
}

// upload is an image archive that is being uploaded.
type upload struct {
	path, name string
	content    io.Reader
	// total is its size; zero if unknown.
	total int64
}

func (up *uploader) push(ctx context.Context, u upload) (*apiv1.Image, error) {
	show := newUploadProgress(up.err, u.total)
	transport := credentials.Transport(up.server)
	defer transport.CloseIdleConnections()
	image, err := imagefile.Push(ctx, imagefile.PushOptions{
		Server: credentials.FirstAddress(up.server), Client: &http.Client{Transport: transport}, Name: u.name, Content: u.content, Progress: show.update,
	})
	show.end()
	var unreachable *url.Error
	switch {
	case errors.Is(err, errInterrupted) || ctx.Err() != nil:
		return nil, errors.New("the upload was interrupted; nothing of it stays")
	case errors.As(err, &unreachable):
		return nil, up.nobodyAnswers(err)
	case errdefs.IsInvalidArgument(err) && u.path != "-":
		return nil, fmt.Errorf("%s: %w", u.path, err)
	}
	return image, err
}

// resolveImage returns the zone's name of an image: of a file at path, which is uploaded, of standard input ("-"), or of an
// image in the store.
func (up *uploader) resolveImage(ctx context.Context, named, path string) (string, error) {
	if named != "-" {
		_, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !isArchiveName(named):
			return named, nil
		case errors.Is(err, fs.ErrNotExist):
			return "", usagef("%s: no such file", path)
		case err != nil:
			return "", plainPathError(err)
		}
		named = path
	}
	return uploaded(named)(up.pushFrom(ctx, named, ""))
}

// uploaded returns the name of a pushed image.
func uploaded(from string) func(*apiv1.Image, error) (string, error) {
	return func(image *apiv1.Image, err error) (string, error) {
		if err != nil {
			return "", err
		}
		if image.GetName() == "" {
			return "", fmt.Errorf("the archive gives its image no name; upload it under one with `mammoth image push %s NAME:TAG`, and deploy that", from)
		}
		return image.GetName(), nil
	}
}

// isArchiveName distinguishes a missing file from a name in the store.
func isArchiveName(named string) bool {
	return strings.HasPrefix(named, ".") || strings.HasPrefix(named, "/") || hasArchiveSuffix(named)
}

func hasArchiveSuffix(named string) bool {
	return slices.Contains([]string{imagefile.Suffix, ".tar", ".tgz", ".gz"}, filepath.Ext(named))
}
