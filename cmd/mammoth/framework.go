package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// frameworkCommands show, install and remove framework packages.
type frameworkCommands struct {
	client
	uploads *uploader
	in      io.Reader
}

func (c *frameworkCommands) frameworkCommand() *cobra.Command {
	return group("framework", "Install and remove framework packages, which bring kinds of application masters and companions",
		c.frameworkListCommand(), c.frameworkShowCommand(), c.frameworkInstallCommand(), c.frameworkRemoveCommand())
}

func (c *frameworkCommands) frameworkListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List framework packages, and how many apps have each",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.frameworks.ListFrameworks(cmd.Context(), &apiv1.ListFrameworksRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return frameworkTable(w, answer.GetFrameworks()) })
			})
		},
	}
}

func frameworkTable(w io.Writer, frameworks []*apiv1.Framework) error {
	t := newTable(w, "NAME", "VERSION", "MASTER", "ENDS", "COMPANION", "APPS", "AGE", "DESCRIPTION")
	for _, f := range frameworks {
		p := f.GetPackage()
		m, k := p.GetMaster(), p.GetCompanion()
		t.row(p.GetName(), orDash(p.GetVersion()), startWords(m.GetImage(), m.GetCommand()), yes(m.GetEnds()), startWords(k.GetImage(), k.GetCommand()), f.GetApps(), ago(f.GetInstalledAt()), p.GetDescription())
	}
	return t.Flush()
}

// startWords is what a master or a companion of a framework runs; "-" if there is none.
func startWords(image string, command []string) string {
	return orDash(whatRuns(&apiv1.RoleSpec{Image: image, Command: command}))
}

func (c *frameworkCommands) frameworkShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a framework package, and the schemas of the options that its apps and its companion have",
		Args:              names("the name of a framework package"),
		ValidArgsFunction: firstArgument(c.completeFrameworks),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				framework, err := z.frameworks.GetFramework(cmd.Context(), &apiv1.GetFrameworkRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(framework, func(w io.Writer) error { return frameworkText(w, framework) })
			})
		},
	}
}

func frameworkText(w io.Writer, f *apiv1.Framework) error {
	p := f.GetPackage()
	t := newTable(w)
	t.row("name", p.GetName())
	t.row("version", orDash(p.GetVersion()))
	t.row("description", orDash(p.GetDescription()))
	if m := p.GetMaster(); m != nil {
		startRows(t, "", startedBy{m.GetImage(), m.GetImageDigest(), m.GetCommand(), m.GetArgs()})
		t.row("master", resourceWords(m.GetResources()))
		t.row("work", map[bool]string{false: "goes on until it is stopped", true: "has an end"}[m.GetEnds()])
		t.row("previews", yes(m.GetPreviews()))
	}
	if k := p.GetCompanion(); k != nil {
		startRows(t, "companion ", startedBy{k.GetImage(), k.GetImageDigest(), k.GetCommand(), k.GetArgs()})
		if r := k.GetResources(); r != nil {
			t.row("companion", resourceWords(r))
		}
	}
	t.row("apps", f.GetApps())
	switch {
	case f.GetBuiltIn():
		t.row("installed", "with the zone; it is part of Mammoth")
	case f.GetUser() != "":
		t.row("installed", fmt.Sprintf("%s ago by %s", ago(f.GetInstalledAt()), f.GetUser()))
	default:
		t.row("installed", ago(f.GetInstalledAt())+" ago")
	}
	return errors.Join(t.Flush(), schemaText(w, "options", p.GetOptions()), schemaText(w, "companion options", p.GetCompanion().GetOptions()))
}

// startedBy is what a master or a companion runs.
type startedBy struct {
	image, digest string
	command, args []string
}

func startRows(t table, of string, by startedBy) {
	if by.image != "" {
		t.row(of+"image", fmt.Sprintf("%s (%s)", by.image, orDash(shortDigest(by.digest))))
	}
	if words := append(slices.Clone(by.command), by.args...); len(words) > 0 {
		t.row(of+"command", strings.Join(words, " "))
	}
}

func resourceWords(r *corev1.Resources) string {
	return fmt.Sprintf("cpu %s, memory %s, disk %s", cores(r.GetCpuMillis()), size(r.GetMemoryBytes()), size(r.GetDiskBytes()))
}

// schemaText writes a schema below its title.
func schemaText(w io.Writer, title string, schema *structpb.Struct) error {
	if schema == nil {
		return nil
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	encoder := yaml.NewEncoder(indented{w})
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(schema.AsMap()), encoder.Close())
}

// indented writes lines behind two blanks. Each write has whole lines.
type indented struct{ to io.Writer }

func (i indented) Write(lines []byte) (int, error) {
	text := "  " + strings.ReplaceAll(strings.TrimSuffix(string(lines), "\n"), "\n", "\n  ") + "\n"
	_, err := io.WriteString(i.to, text)
	return len(lines), err
}

func (c *frameworkCommands) frameworkInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install FILE|NAME",
		Short: "Install a framework package from a file, or one that is part of Mammoth by its name",
		Long: `Install adds a kind of application master, or a companion, to the zone, or replaces the package of its name. The zone
goes on meanwhile: masters that run stay, and the next ones are started as the new package says.

  name: ring
  version: "1"
  description: keeps a ring of workers
  master:
    command: [ring]                  # a program of the nodes; or image: a file beside, or NAME:TAG
    resources: {cpu: 100m, memory: 64MiB, disk: 32MiB}
    ends: false                      # true: its master says when its work has ended, and how
    previews: false                  # true: its master says in a dry run what would become of the app
  options:                           # the JSON Schema of what an app of it has in its options
    type: object
    properties: {workers: {type: integer, minimum: 1}}
  companion:                         # in place of master, or beside it
    command: [ring-proxy]            # or image
    resources: {cpu: 100m, memory: 64MiB, disk: 32MiB}
    health: exec:test -e ready
    options: {type: object, properties: {listen: {type: string}}}

An app names it in its manifest, with "framework: ring", and says in "options" what its master reads.
A companion app runs the companion by the package's name: "kind: companion" and "companion: {ring: {listen:
127.0.0.1:8080}}"; each option is a flag of the program, --listen=127.0.0.1:8080.
DynamicDeploy is such a package, and every new zone has it; "mammoth framework install dynamicdeploy"
installs it again once it was removed. "-" is standard input.`,
		Example: "  mammoth framework install ring.yaml\n  mammoth framework install dynamicdeploy",
		Args:    names("a file, or the name of a framework that is part of Mammoth"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &apiv1.InstallFrameworkRequest{}
			info, err := os.Stat(args[0])
			switch missing := errors.Is(err, fs.ErrNotExist) && args[0] != "-"; {
			case (missing || err == nil && info.IsDir()) && spec.CheckName("a framework", args[0]) == nil:
				request.BuiltIn = args[0]
			case missing:
				return usagef("%s: no such file or directory", args[0])
			default:
				data, err := readFile(c.in, args[0])
				if err != nil {
					return err
				}
				if request.Package, err = manifest.ParseFramework(data); err != nil {
					return usageError{inFile(args[0], err)}
				}
			}
			return c.with(cmd.Context(), func(z *zone) error {
				resolve := func(named string) (string, error) {
					beside := named
					if !filepath.IsAbs(beside) {
						beside = filepath.Join(folderOf(args[0]), beside)
					}
					return c.uploads.resolveImage(cmd.Context(), named, beside)
				}
				var err error
				if m := request.GetPackage().GetMaster(); m.GetImage() != "" {
					if m.Image, err = resolve(m.GetImage()); err != nil {
						return err
					}
				}
				if k := request.GetPackage().GetCompanion(); k.GetImage() != "" {
					if k.Image, err = resolve(k.GetImage()); err != nil {
						return err
					}
				}
				framework, err := z.frameworks.InstallFramework(cmd.Context(), request)
				if err != nil {
					return err
				}
				return c.print(framework, func(w io.Writer) error {
					p := framework.GetPackage()
					var uses []string
					if p.GetMaster() != nil {
						uses = append(uses, fmt.Sprintf("\"framework: %s\" in a manifest makes an app of it", p.GetName()))
					}
					if p.GetCompanion() != nil {
						uses = append(uses, fmt.Sprintf("\"kind: companion\" and \"companion: %s\" run its companion", p.GetName()))
					}
					_, err := fmt.Fprintf(w, "framework %s is installed; %s\n", strings.TrimSpace(p.GetName()+" "+p.GetVersion()), strings.Join(uses, "; "))
					return err
				})
			})
		},
	}
}

func (c *frameworkCommands) frameworkRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Short:             "Remove a framework package that no app has",
		Args:              names("the name of a framework package"),
		ValidArgsFunction: firstArgument(c.completeFrameworks),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				framework, err := z.frameworks.RemoveFramework(cmd.Context(), &apiv1.GetFrameworkRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(framework, func(w io.Writer) error {
					text := fmt.Sprintf("framework %s is removed", args[0])
					if framework.GetBuiltIn() {
						text += fmt.Sprintf("; `mammoth framework install %s` installs it again", args[0])
					}
					_, err := fmt.Fprintln(w, text)
					return err
				})
			})
		},
	}
}
