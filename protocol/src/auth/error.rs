//! Errors as GoTrue says them: a status, a code and words. Source: GoTrue, `internal/api/apierrors` and `errors.go`.

use serde_json::{Value, json};

/// GoTrue's error codes, as far as they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    UnexpectedFailure,
    ValidationFailed,
    BadJson,
    EmailExists,
    PhoneExists,
    BadJwt,
    NotAdmin,
    NoAuthorization,
    UserNotFound,
    SessionNotFound,
    SessionExpired,
    RefreshTokenNotFound,
    RefreshTokenAlreadyUsed,
    SignupDisabled,
    UserBanned,
    EmailProviderDisabled,
    PhoneProviderDisabled,
    AnonymousProviderDisabled,
    EmailNotConfirmed,
    PhoneNotConfirmed,
    UserAlreadyExists,
    SamePassword,
    WeakPassword,
    CurrentPasswordRequired,
    CurrentPasswordMismatch,
    OverRequestRateLimit,
    OverEmailSendRateLimit,
    MfaPhoneEnrollDisabled,
    MfaWebAuthnEnrollDisabled,
    MfaFactorNameConflict,
    TooManyEnrolledMfaFactors,
    InsufficientAal,
    MfaFactorNotFound,
    MfaChallengeExpired,
    MfaIpAddressMismatch,
    MfaVerificationFailed,
    ReauthenticationNeeded,
    ReauthenticationNotValid,
    ManualLinkingDisabled,
    ProviderDisabled,
    RequestEntityTooLarge,
    OtpExpired,
    FlowStateNotFound,
    FlowStateExpired,
    BadCodeVerifier,
    OtpDisabled,
    InvalidCredentials,
    EmailAddressInvalid,
    SamlProviderDisabled,
    Web3ProviderDisabled,
    FeatureDisabled,
    OverloadedHashing,
}

impl Code {
    pub fn text(self) -> &'static str {
        match self {
            Self::UnexpectedFailure => "unexpected_failure",
            Self::ValidationFailed => "validation_failed",
            Self::BadJson => "bad_json",
            Self::EmailExists => "email_exists",
            Self::PhoneExists => "phone_exists",
            Self::BadJwt => "bad_jwt",
            Self::NotAdmin => "not_admin",
            Self::NoAuthorization => "no_authorization",
            Self::UserNotFound => "user_not_found",
            Self::SessionNotFound => "session_not_found",
            Self::SessionExpired => "session_expired",
            Self::RefreshTokenNotFound => "refresh_token_not_found",
            Self::RefreshTokenAlreadyUsed => "refresh_token_already_used",
            Self::SignupDisabled => "signup_disabled",
            Self::UserBanned => "user_banned",
            Self::EmailProviderDisabled => "email_provider_disabled",
            Self::PhoneProviderDisabled => "phone_provider_disabled",
            Self::AnonymousProviderDisabled => "anonymous_provider_disabled",
            Self::EmailNotConfirmed => "email_not_confirmed",
            Self::PhoneNotConfirmed => "phone_not_confirmed",
            Self::UserAlreadyExists => "user_already_exists",
            Self::SamePassword => "same_password",
            Self::WeakPassword => "weak_password",
            Self::CurrentPasswordRequired => "current_password_required",
            Self::CurrentPasswordMismatch => "current_password_mismatch",
            Self::OverRequestRateLimit | Self::OverloadedHashing => "over_request_rate_limit",
            Self::OverEmailSendRateLimit => "over_email_send_rate_limit",
            Self::FlowStateNotFound => "flow_state_not_found",
            Self::FlowStateExpired => "flow_state_expired",
            Self::BadCodeVerifier => "bad_code_verifier",
            Self::MfaPhoneEnrollDisabled => "mfa_phone_enroll_not_enabled",
            Self::MfaWebAuthnEnrollDisabled => "mfa_webauthn_enroll_not_enabled",
            Self::MfaFactorNameConflict => "mfa_factor_name_conflict",
            Self::TooManyEnrolledMfaFactors => "too_many_enrolled_mfa_factors",
            Self::InsufficientAal => "insufficient_aal",
            Self::MfaFactorNotFound => "mfa_factor_not_found",
            Self::MfaChallengeExpired => "mfa_challenge_expired",
            Self::MfaIpAddressMismatch => "mfa_ip_address_mismatch",
            Self::MfaVerificationFailed => "mfa_verification_failed",
            Self::ReauthenticationNeeded => "reauthentication_needed",
            Self::ReauthenticationNotValid => "reauthentication_not_valid",
            Self::ManualLinkingDisabled => "manual_linking_disabled",
            Self::ProviderDisabled => "provider_disabled",
            Self::RequestEntityTooLarge => "request_entity_too_large",
            Self::OtpExpired => "otp_expired",
            Self::OtpDisabled => "otp_disabled",
            Self::InvalidCredentials => "invalid_credentials",
            Self::EmailAddressInvalid => "email_address_invalid",
            Self::SamlProviderDisabled => "saml_provider_disabled",
            Self::Web3ProviderDisabled => "web3_provider_disabled",
            Self::FeatureDisabled => "feature_disabled",
        }
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
