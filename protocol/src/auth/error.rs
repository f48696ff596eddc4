//! Errors as GoTrue says them: a status, a code and words. Source: GoTrue, `internal/api/apierrors` and `errors.go`.

use serde_json::{Value, json};

macro_rules! codes {
    ($($name:ident => $text:literal,)*) => {
        /// GoTrue's error codes, as far as they are given.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    UnexpectedFailure => "unexpected_failure",
    Unknown => "unknown",
    ValidationFailed => "validation_failed",
    BadJson => "bad_json",
    EmailExists => "email_exists",
    PhoneExists => "phone_exists",
    BadJwt => "bad_jwt",
    NotAdmin => "not_admin",
    NoAuthorization => "no_authorization",
    UserNotFound => "user_not_found",
    SessionNotFound => "session_not_found",
    SessionExpired => "session_expired",
    RefreshTokenNotFound => "refresh_token_not_found",
    RefreshTokenAlreadyUsed => "refresh_token_already_used",
    FlowStateNotFound => "flow_state_not_found",
    FlowStateExpired => "flow_state_expired",
    FlowStateAlreadyUsed => "flow_state_already_used",
    BadCodeVerifier => "bad_code_verifier",
    SignupDisabled => "signup_disabled",
    UserBanned => "user_banned",
    InviteNotFound => "invite_not_found",
    BadOAuthState => "bad_oauth_state",
    BadOAuthCallback => "bad_oauth_callback",
    OAuthProviderNotSupported => "oauth_provider_not_supported",
    ProviderEmailNeedsVerification => "provider_email_needs_verification",
    ProviderDisabled => "provider_disabled",
    CustomProviderNotFound => "custom_provider_not_found",
    Conflict => "conflict",
    IdentityAlreadyExists => "identity_already_exists",
    IdentityNotFound => "identity_not_found",
    SingleIdentityNotDeletable => "single_identity_not_deletable",
    EmailConflictIdentityNotDeletable => "email_conflict_identity_not_deletable",
    ManualLinkingDisabled => "manual_linking_disabled",
    EmailProviderDisabled => "email_provider_disabled",
    PhoneProviderDisabled => "phone_provider_disabled",
    AnonymousProviderDisabled => "anonymous_provider_disabled",
    SamlProviderDisabled => "saml_provider_disabled",
    Web3ProviderDisabled => "web3_provider_disabled",
    FeatureDisabled => "feature_disabled",
    EmailNotConfirmed => "email_not_confirmed",
    PhoneNotConfirmed => "phone_not_confirmed",
    UserAlreadyExists => "user_already_exists",
    EmailAddressInvalid => "email_address_invalid",
    InvalidCredentials => "invalid_credentials",
    SamePassword => "same_password",
    WeakPassword => "weak_password",
    CurrentPasswordRequired => "current_password_required",
    CurrentPasswordMismatch => "current_password_invalid",
    ReauthenticationNeeded => "reauthentication_needed",
    ReauthenticationNotValid => "reauthentication_not_valid",
    OtpExpired => "otp_expired",
    OtpDisabled => "otp_disabled",
    CaptchaFailed => "captcha_failed",
    SmsSendFailed => "sms_send_failed",
    OverRequestRateLimit => "over_request_rate_limit",
    OverloadedHashing => "over_request_rate_limit",
    OverEmailSendRateLimit => "over_email_send_rate_limit",
    OverSmsSendRateLimit => "over_sms_send_rate_limit",
    HookTimeout => "hook_timeout",
    HookPayloadOverSizeLimit => "hook_payload_over_size_limit",
    HookPayloadInvalidContentType => "hook_payload_invalid_content_type",
    MfaTotpEnrollDisabled => "mfa_totp_enroll_not_enabled",
    MfaTotpVerifyDisabled => "mfa_totp_verify_not_enabled",
    MfaPhoneEnrollDisabled => "mfa_phone_enroll_not_enabled",
    MfaPhoneVerifyDisabled => "mfa_phone_verify_not_enabled",
    MfaWebAuthnEnrollDisabled => "mfa_webauthn_enroll_not_enabled",
    MfaWebAuthnVerifyDisabled => "mfa_webauthn_verify_not_enabled",
    MfaFactorNameConflict => "mfa_factor_name_conflict",
    TooManyEnrolledMfaFactors => "too_many_enrolled_mfa_factors",
    InsufficientAal => "insufficient_aal",
    MfaFactorNotFound => "mfa_factor_not_found",
    MfaVerifiedFactorExists => "mfa_verified_factor_exists",
    MfaChallengeExpired => "mfa_challenge_expired",
    MfaIpAddressMismatch => "mfa_ip_address_mismatch",
    MfaVerificationFailed => "mfa_verification_failed",
    MfaVerificationRejected => "mfa_verification_rejected",
    PasskeyDisabled => "passkey_disabled",
    TooManyPasskeys => "too_many_passkeys",
    WebAuthnCredentialNotFound => "webauthn_credential_not_found",
    WebAuthnChallengeNotFound => "webauthn_challenge_not_found",
    WebAuthnChallengeExpired => "webauthn_challenge_expired",
    WebAuthnVerificationFailed => "webauthn_verification_failed",
    WebAuthnCredentialExists => "webauthn_credential_exists",
    OAuthClientNotFound => "oauth_client_not_found",
    OAuthAuthorizationNotFound => "oauth_authorization_not_found",
    OAuthConsentNotFound => "oauth_consent_not_found",
    OAuthRegistrationDisabled => "oauth_dynamic_client_registration_disabled",
    RequestEntityTooLarge => "request_entity_too_large",
}

/// An error as OAuth has it (RFC 6749, 5.2), which a few of GoTrue's endpoints give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {description}")]
pub struct OAuthError {
    pub status: u16,
    pub error: &'static str,
    pub description: String,
}

impl OAuthError {
    /// The request is not what it has to be (400).
    pub fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: 400, error, description: description.into() }
    }

    pub fn body(&self) -> Value {
        json!({ "error": self.error, "error_description": self.description })
    }
}

/// An error on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub status: u16,
    pub code: Code,
    pub message: String,
    /// Why a password is weak: `length`, `characters`, `pwned`.
    pub reasons: Vec<&'static str>,
}

impl Error {
    pub fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), reasons: Vec::new() }
    }

    /// The request is not what it has to be (400).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, Code::ValidationFailed, message)
    }

    pub fn weak(message: String, reasons: Vec<&'static str>) -> Self {
        Self { reasons, ..Self::new(422, Code::WeakPassword, message) }
    }

    /// Something of ours has failed; what exactly is for the log.
    pub fn unexpected() -> Self {
        Self::new(500, Code::UnexpectedFailure, "Unexpected failure, please check server logs for more information")
    }

    pub fn body(&self, version: Version) -> Value {
        let code = self.code.text();
        let mut body = match version {
            Version::Initial => json!({ "code": self.status, "error_code": code, "msg": self.message }),
            Version::Of20240101 => json!({ "code": code, "message": self.message }),
        };
        if self.code == Code::WeakPassword {
            body["weak_password"] = json!({ "reasons": self.reasons });
        }
        body
    }
}

/// What the header `X-Supabase-Api-Version` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Initial,
    Of20240101,
}

impl Version {
    /// The newest that is not newer than what was asked for; the first where that is no date.
    pub fn of(header: Option<&str>) -> Self {
        let is_date = |text: &str| {
            let shape = |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
            text.len() == 10 && text.bytes().enumerate().all(shape)
        };
        match header {
            Some(date) if is_date(date) && date >= "2024-01-01" => Self::Of20240101,
            _ => Self::Initial,
        }
    }

    /// What the answer's header says.
    pub fn echo(self) -> Option<&'static str> {
        (self == Self::Of20240101).then_some("2024-01-01")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_depend_on_the_version() {
        let error = Error::new(422, Code::UserAlreadyExists, "User already registered");
        let old = json!({ "code": 422, "error_code": "user_already_exists", "msg": "User already registered" });
        assert_eq!(error.body(Version::of(None)), old);
        assert_eq!(error.body(Version::of(Some("soon"))), old);
        assert_eq!(error.body(Version::of(Some("2023-12-31"))), old);
        let new = json!({ "code": "user_already_exists", "message": "User already registered" });
        assert_eq!(error.body(Version::of(Some("2024-01-01"))), new);
        assert_eq!(error.body(Version::of(Some("2026-11-21"))), new);
        let weak = Error::weak("short".into(), vec!["length"]);
        assert_eq!(weak.body(Version::Of20240101)["weak_password"]["reasons"], json!(["length"]));
    }
}
