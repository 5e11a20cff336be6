// Command kstatus says what Flux, Helm and kpt make of objects: one JSON object a line on standard input, one status a
// line on standard output. Flux and Helm use a fork of the library that kpt and others use; both are asked, and an object
// on which they differ is an error.
package main

import (
	"bufio"
	"fmt"
	"os"

	flux "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	upstream "sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			return fmt.Errorf("a line is no Kubernetes object: %w", err)
		}
		status, err := compute(&object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		fmt.Println(status)
	}
	return lines.Err()
}

func compute(object *unstructured.Unstructured) (string, error) {
	forked, err := flux.Compute(object)
	if err != nil {
		return "", err
	}
	original, err := upstream.Compute(object)
	if err != nil {
		return "", err
	}
	if string(forked.Status) != string(original.Status) {
		return "", fmt.Errorf("Flux and Helm say %s, cli-utils says %s", forked.Status, original.Status)
	}
	return string(forked.Status), nil
}
