package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
)

const statementType = "application/vnd.in-toto+json"

// signBundle signs as the library is meant to be used: services from the signing configuration, and the finished bundle
// held against the trusted root before it is handed out.
func signBundle(o options) error {
	content, err := contentOf(o)
	if err != nil {
		return err
	}
	config, err := root.NewSigningConfigFromPath(o.signingConfig)
	if err != nil {
		return fmt.Errorf("signing configuration: %w", err)
	}
	trusted, err := root.NewTrustedRootFromPath(o.trustedRoot)
	if err != nil {
		return fmt.Errorf("trusted root: %w", err)
	}
	bundleOptions, err := services(config)
	if err != nil {
		return err
	}
	keypair, err := identify(o, trusted, &bundleOptions)
	if err != nil {
		return err
	}
	bundle, err := sign.Bundle(content, keypair, bundleOptions)
	if err != nil {
		return err
	}
	written, err := protojson.Marshal(bundle)
	if err != nil {
		return err
	}
	return os.WriteFile(o.bundle, written, 0o600)
}

// identify makes the key, and says in the options who signs with it: whoever the token is for, or just this key.
func identify(o options, trusted root.TrustedMaterial, chosen *sign.BundleOptions) (sign.Keypair, error) {
	if (o.tokenFile == "") == (o.algorithm == "" || o.publicKey == "") {
		return nil, fmt.Errorf("%w: give --token-file, or --algorithm with --public-key", errUsage)
	}
	algorithm := protocommon.PublicKeyDetails(protocommon.PublicKeyDetails_value[o.algorithm])
	keypair, err := sign.NewEphemeralKeypair(&sign.EphemeralKeypairOptions{Algorithm: algorithm})
	if err != nil {
		return nil, err
	}
	if o.tokenFile != "" {
		token, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, err
		}
		chosen.TrustedRoot = trusted
		chosen.CertificateProviderOptions = &sign.CertificateProviderOptions{IDToken: strings.TrimSpace(string(token))}
		return keypair, nil
	}
	text, err := keypair.GetPublicKeyPem()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(o.publicKey, []byte(text), 0o600); err != nil {
		return nil, err
	}
	key, err := keyFrom(o.publicKey)
	if err != nil {
		return nil, err
	}
	chosen.TrustedRoot = root.TrustedMaterialCollection{trusted, key}
	chosen.CertificateProvider = nil
	return keypair, nil
}

func contentOf(o options) (sign.Content, error) {
	if (o.file == "") == (o.statement == "") {
		return nil, fmt.Errorf("%w: give --file or --statement", errUsage)
	}
	data, err := os.ReadFile(o.file + o.statement)
	if err != nil {
		return nil, err
	}
	if o.file != "" {
		return &sign.PlainData{Data: data}, nil
	}
	return &sign.DSSEData{Data: data, PayloadType: statementType}, nil
}

// services selects one of each kind, as the configuration says.
func services(config *root.SigningConfig) (sign.BundleOptions, error) {
	var chosen sign.BundleOptions
	now := time.Now()
	ca, err := root.SelectService(config.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, now)
	if err != nil {
		return chosen, fmt.Errorf("certificate authority: %w", err)
	}
	chosen.CertificateProvider = sign.NewFulcio(&sign.FulcioOptions{BaseURL: ca.URL})
	stamps, err := root.SelectServices(config.TimestampAuthorityURLs(), config.TimestampAuthorityURLsConfig(),
		sign.TimestampAuthorityAPIVersions, now)
	if err != nil {
		return chosen, fmt.Errorf("time-stamp authority: %w", err)
	}
	for _, one := range stamps {
		authority := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: one.URL})
		chosen.TimestampAuthorities = append(chosen.TimestampAuthorities, authority)
	}
	logs, err := logsOf(config)
	if err != nil {
		return chosen, err
	}
	for _, one := range logs {
		rekor := sign.NewRekor(&sign.RekorOptions{BaseURL: one.URL, Version: one.MajorAPIVersion})
		chosen.TransparencyLogs = append(chosen.TransparencyLogs, rekor)
	}
	return chosen, nil
}

func logsOf(config *root.SigningConfig) ([]root.Service, error) {
	logs, err := root.SelectServices(config.RekorLogURLs(), config.RekorLogURLsConfig(), sign.RekorAPIVersions, time.Now())
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return logs, nil
}
