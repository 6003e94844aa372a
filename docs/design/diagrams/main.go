// Command diagrams redraws the state diagrams in docs/design from the tables that the program runs on. Run it with
// `make generate`.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

const (
	begin = "<!-- diagram: "
	end   = "<!-- end -->"
)

func main() {
	log.SetFlags(0)
	if err := redraw(filepath.Join("docs", "design")); err != nil {
		log.Fatal("diagrams: ", err)
	}
}

func redraw(dir string) error {
	texts := map[string]string{"nodemanager/container": container.Table().Mermaid()}
	for _, diagram := range lifecycle.Mermaid() {
		texts[diagram.Name] = diagram.Text
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil {
		return err
	}
	drawn := map[string]bool{}
	for _, page := range pages {
		old, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		text, err := replace(string(old), texts, drawn)
		if err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name := range texts {
		if !drawn[name] {
			return fmt.Errorf("no page has a place for the diagram %q", name)
		}
	}
	return nil
}

// replace puts each diagram between its mark and the end mark that follows.
func replace(page string, texts map[string]string, drawn map[string]bool) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(page, begin)
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, rest, _ := strings.Cut(rest, " -->")
		_, rest, closed := strings.Cut(rest, end)
		text, known := texts[name]
		if !known || !closed {
			return "", fmt.Errorf("the mark of diagram %q names no table or is never ended", name)
		}
		drawn[name] = true
		fmt.Fprintf(&out, "%s%s -->\n```mermaid\n%s```\n%s", begin, name, text, end)
		page = rest
	}
}
